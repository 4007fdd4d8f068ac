"""`python -m viddiff` is `viddiff`."""

from viddiff.cli import run

if __name__ == "__main__":
    run()
