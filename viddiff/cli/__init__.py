"""The command line: `viddiff encode`, `decode`, `info`, `train` and `selftest`, a file for each.

Exit codes: 0 done, 1 `Error: one sentence` on stderr, 2 wrong use, 3 decoded around damage, 130 interrupted.
Heavy imports wait inside the commands, so that `--help` is quick.
"""

import contextlib
import re
import signal
import sys
import threading
from typing import Any, NoReturn

import click

import viddiff.quickstart  # noqa: F401
from viddiff.cli.decode import decode_command
from viddiff.cli.encode import encode_command
from viddiff.cli.info import info_command
from viddiff.cli.selftest import selftest_command
from viddiff.cli.shared import printable
from viddiff.cli.train import train_command
from viddiff.errors import ViddiffError
from viddiff.version import __version__

_NO_MEMORY = re.compile(
    "allocate memory|out of memory|bad_alloc|failed to map segment|error return without exception set", re.I
)


class _Commands(click.Group):
    """A group whose commands end in a result or in one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except ViddiffError as error:
            raise click.ClickException(_one_line(error)) from error
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                sys.stdout.close()
            ctx.exit(1)
        except OSError as error:
            raise click.ClickException(_one_line(error)) from error
        except (MemoryError, RuntimeError, ImportError, SystemError) as error:
            if not _lacks_memory(error):
                raise
            raise click.ClickException("there is not enough memory for this video") from error
        except KeyboardInterrupt:
            ctx.exit(130)


def _lacks_memory(error: Exception) -> bool:
    """PyTorch has no MemoryError of the CPU, libraries may not find room to be loaded, and Python itself may
    be at a loss.
    """
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def _one_line(error: Exception) -> str:
    return printable(str(error)) or type(error).__name__


def _terminate(*_: object) -> NoReturn:
    """Leave by way of every `finally`, so that no partial file stays."""
    sys.exit(143)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="viddiff")
def main() -> None:
    """A learned video codec: encode any video to .vdf, decode it exactly, train it on your own footage."""


for _command in (encode_command, decode_command, info_command, train_command, selftest_command):
    main.add_command(_command)
