"""viddiff: a learned video codec."""

from viddiff.version import __version__ as __version__
