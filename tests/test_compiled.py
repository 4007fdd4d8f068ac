"""Signals during compiled code are not lost, although numba wraps a handler's exception in a SystemError."""

from collections.abc import Callable

import pytest

from viddiff import compiled as module


def failing(error: BaseException, cause: BaseException | None) -> Callable[[], None]:
    def fail() -> None:
        raise error from cause

    return fail


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143)])
def test_interruptions_come_out(interruption: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernel", lambda function: function)
    inner = SystemError("a helper returned a result with an exception set")
    inner.__cause__ = interruption
    with pytest.raises(type(interruption)) as caught:
        module.compiled(failing(SystemError("the function did, too"), inner))()
    assert caught.value is interruption


def test_other_system_errors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernel", lambda function: function)
    error = SystemError("something else")
    with pytest.raises(SystemError) as caught:
        module.compiled(failing(error, ValueError()))()
    assert caught.value is error
