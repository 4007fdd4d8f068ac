"""`viddiff selftest`."""

from dataclasses import asdict

import click

from viddiff.cli import options
from viddiff.cli.printing import print_json
from viddiff.errors import ViddiffError


@click.command("selftest")
@options.json_option
def selftest_command(as_json: bool) -> None:
    """Check that this machine decodes exactly.

    \b
    Example:
      viddiff selftest
    """
    from viddiff.pipeline.selftest import checks, golden_folder

    done = []
    if not as_json:
        click.echo(f"{'device':8}{'threads':9}{'file':36}result")
    for check in checks(golden_folder()):
        done.append(check)
        if not as_json:
            click.echo(f"{check.device:8}{check.threads:<9}{check.file:36}{check.result}")
    if as_json:
        print_json({"checks": [asdict(check) for check in done]})
    if failed := sum(check.result != "same" for check in done):
        raise ViddiffError(f"{failed} decoded files differ: do not trust this machine's output")
