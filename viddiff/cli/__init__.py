"""The command line: `viddiff encode`, `decode` and so on, one file for each command.

Exit codes: 0 done, 1 `Error: one sentence` on stderr, 2 wrong use, 3 done, but frames are lost or have no
match, or files of a batch failed, 4 not worth it: the file would be too large, 130 interrupted, 129 and 143
ended by SIGHUP and SIGTERM. Commands import heavy modules only when they run, so that `--help` is quick.
"""

import os
import re
import sys
from typing import Any

import click

from viddiff.cli.base import base_command
from viddiff.cli.batch import batch_command
from viddiff.cli.compare import compare_command
from viddiff.cli.cut import cut_command
from viddiff.cli.decode import decode_command
from viddiff.cli.encode import encode_command
from viddiff.cli.info import info_command
from viddiff.cli.join import join_command
from viddiff.cli.play import play_command
from viddiff.cli.printing import say, sentence
from viddiff.cli.selftest import selftest_command
from viddiff.cli.serve import serve_command
from viddiff.cli.standard_streams import flush, make_usable
from viddiff.cli.termination import end_orderly
from viddiff.cli.thumbnail import thumbnail_command
from viddiff.cli.train import train_command
from viddiff.errors import TooLargeError, ViddiffError
from viddiff.garbage_collection import collect_rarely
from viddiff.version import __version__

NOT_WORTH_IT = 4
"""Exit code if a file would be larger than `--max-encoded-percent` allows."""
_NO_MEMORY = re.compile(
    "allocate memory|out of memory|bad_alloc|failed to map segment|error return without exception set", re.I
)


class _Commands(click.Group):
    """A group whose commands end in a result or in one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        end_orderly()
        try:
            return super().invoke(ctx)
        except TooLargeError as error:
            say(f"Not worth it: {sentence(error)}")
            ctx.exit(NOT_WORTH_IT)
        except ViddiffError as error:
            raise click.ClickException(sentence(error)) from error
        except BrokenPipeError:
            ctx.exit(1)
        except OSError as error:
            raise click.ClickException(sentence(error)) from error
        except (MemoryError, RuntimeError, ImportError, SystemError) as error:
            if not _lacks_memory(error):
                raise
            raise click.ClickException("there is not enough memory for this video") from error
        except KeyboardInterrupt:
            ctx.exit(130)


def _lacks_memory(error: Exception) -> bool:
    """True if an error means that memory ran out.

    PyTorch has no MemoryError on the CPU. Libraries may find no memory to be loaded, and Python itself may
    fail.
    """
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="viddiff")
def main() -> None:
    """A learned video codec: encode any video to .vdf, decode it exactly, train it on your own footage."""


def run() -> None:
    """Entry point of the installed command."""
    collect_rarely()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads: slow to start, and no work for them
    make_usable()
    try:
        main(prog_name="viddiff")
    except OSError as error:  # of --help, say, on a full disk
        say(f"Error: {sentence(error)}")
        sys.exit(1)
    finally:
        flush()


for _command in (
    encode_command,
    decode_command,
    compare_command,
    batch_command,
    base_command,
    cut_command,
    join_command,
    thumbnail_command,
    play_command,
    serve_command,
    info_command,
    train_command,
    selftest_command,
):
    main.add_command(_command)
