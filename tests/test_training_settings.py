"""Training works whatever PyTorch settings the program has, and leaves them as they were."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from viddiff.training.settings import training_settings


def state() -> tuple[Any, ...]:
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        flushes_denormals(),
        torch.random.get_rng_state().tolist(),
    )


def flushes_denormals() -> bool:
    return sys.float_info.min / 2 == 0


@pytest.fixture(params=[False, True], ids=["as it comes", "odd"])
def odd(request: pytest.FixtureRequest) -> Iterator[None]:
    """Settings under which nothing can be trained."""
    if not request.param:
        yield
        return
    torch.set_default_dtype(torch.float64)
    torch.set_flush_denormal(True)
    try:
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_default_dtype(torch.float32)


def trained(seed: int) -> torch.Tensor:
    """A number after a step of training."""
    with training_settings(seed, threads=2):
        assert torch.get_num_threads() == 2
        assert flushes_denormals()
        weight = torch.rand(3, requires_grad=True)
        (weight @ torch.rand(3)).backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        assert weight.dtype == torch.float32
        return weight.detach() - weight.grad


@pytest.mark.usefixtures("odd")
def test_the_settings_are_those_of_the_program_again() -> None:
    before = state()
    trained(1)
    assert state() == before
    with pytest.raises(ZeroDivisionError), training_settings(1):
        raise ZeroDivisionError
    assert state() == before


@pytest.mark.usefixtures("odd")
def test_random_numbers_follow_from_the_seed() -> None:
    first, same, other = trained(1).tolist(), trained(1).tolist(), trained(2).tolist()
    assert first == same != other
