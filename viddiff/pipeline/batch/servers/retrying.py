"""Try again what a network has made fail."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

WAITS = (0.5, 2.0, 8.0)
"""Seconds before the second attempt, the third, and so on, less up to a half, so that machines spread."""
Result = TypeVar("Result")


def retried(attempt: Callable[[], Result], again: Callable[[Exception], bool]) -> Result:
    """The result of an attempt. Raises what the last one has raised.

    again: asked after an error whether another attempt may succeed.
    """
    for wait in WAITS:
        try:
            return attempt()
        except Exception as error:
            if not again(error):
                raise
        time.sleep(wait * random.uniform(0.5, 1))
    return attempt()
