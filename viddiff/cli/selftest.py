"""`viddiff selftest`."""

import click

from viddiff.errors import ViddiffError


@click.command("selftest")
def selftest_command() -> None:
    """Check that this machine decodes to the very frames that all others do.

    \b
    Example:
      viddiff selftest
    """
    from viddiff.selftest import checks, golden_folder

    failed = 0
    click.echo(f"{'device':8}{'threads':9}{'file':36}result")
    for check in checks(golden_folder()):
        click.echo(f"{check.device:8}{check.threads:<9}{check.file:36}{check.result}")
        failed += check.result != "same"
    if failed:
        raise ViddiffError(f"{failed} decoded files differ: do not trust this machine's output")
