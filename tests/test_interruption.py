"""Signals that wait."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from viddiff.pipeline.interruption import SIGNALS, DeferredSignals, uninterrupted


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Signals whose handlers ran. Each of them raises; that of SIGTERM after SIGHUP has come, too."""
    seen = list[int]()

    def end(number: int, _: FrameType | None) -> None:
        seen.append(number)
        if number == signal.SIGTERM:
            signal.raise_signal(signal.SIGHUP)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def test_one_signal_ends_it_and_others_wait(handled: list[int]) -> None:
    """Even those that come while the handler of the first one runs."""
    with DeferredSignals() as signals:
        with pytest.raises(SystemExit, match="143"), signals.allowed():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert handled == [signal.SIGTERM]
        signals.forget()
    assert handled == [signal.SIGTERM]


def test_what_waits_comes_when_it_may(handled: list[int]) -> None:
    signals = DeferredSignals()
    with signals:
        signal.raise_signal(signal.SIGHUP)
        assert not handled
        with pytest.raises(SystemExit, match="129"), signals.allowed():
            raise AssertionError("it came too late")
        signal.raise_signal(signal.SIGINT)
        signals.forget()
    assert handled == [signal.SIGHUP]
    waiting = uninterrupted()
    waiting.__enter__()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit, match="130"):
        waiting.__exit__(None, None, None)


def test_within_another(handled: list[int]) -> None:
    with DeferredSignals() as signals:
        with uninterrupted():
            signal.raise_signal(signal.SIGHUP)
        assert not handled, "it waits for the outer block"
        with pytest.raises(SystemExit, match="129"), signals.allowed():
            pass
    assert handled == [signal.SIGHUP]


def test_handlers_that_do_not_raise_run_each_time() -> None:
    seen = list[int]()
    before = signal.signal(signal.SIGHUP, lambda number, _: seen.append(number))
    try:
        with DeferredSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            with signals.allowed():
                assert len(seen) == 1
                signal.raise_signal(signal.SIGHUP)
                signal.raise_signal(signal.SIGHUP)
                assert len(seen) == 3
            signal.raise_signal(signal.SIGHUP)
            assert len(seen) == 3
        assert len(seen) == 4
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_those_of_before(handled: list[int]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with uninterrupted():
        assert all(signal.getsignal(number) not in before for number in SIGNALS)
    assert [signal.getsignal(number) for number in SIGNALS] == before
