"""Modes of blocks: chosen where one hypothesis is wrong, coded alike by encoder and decoder."""

import torch

from viddiff.encoder.mode_choice import choose_modes
from viddiff.networks.modes import (
    BOTH,
    FIRST,
    MODE_TABLES,
    SECOND,
    apply_modes,
    code_modes,
    surrounding_of_table,
)


def _pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A picture of 6 x 9 blocks and two noisy hypotheses.

    The second is wrong on the left, the first on the right.
    """
    torch.manual_seed(1)
    x = torch.randint(200, 800, (1, 6, 24, 36)).float()
    first, second = (x + torch.randint(-20, 21, x.shape) for _ in range(2))
    first[..., 24:] = 512
    second[..., :12] = 512
    return x, first, second


def test_blocks_use_the_hypotheses_that_show_them() -> None:
    modes = choose_modes(*_pictures(), lmbda=20.0)
    expected = torch.tensor([FIRST] * 3 + [BOTH] * 3 + [SECOND] * 3).expand(1, 1, 6, 9)
    assert torch.equal(modes, expected)


def test_one_hypothesis_stands_for_both() -> None:
    x, first, second = _pictures()
    a, b = apply_modes(first, second, choose_modes(x, first, second, lmbda=20.0))
    assert torch.equal(a[..., :12], first[..., :12])
    assert torch.equal(b[..., :12], first[..., :12])
    assert torch.equal(a[..., 12:24], first[..., 12:24])
    assert torch.equal(b[..., 12:24], second[..., 12:24])
    assert torch.equal(a[..., 24:], second[..., 24:])
    assert torch.equal(b[..., 24:], second[..., 24:])


def test_decoder_reads_modes_with_the_indexes_of_the_encoder() -> None:
    _, first, second = _pictures()
    first[..., :4, :4] = second[..., :4, :4]  # nothing to choose in the first block
    torch.manual_seed(2)
    wanted = torch.randint(-1, 2, (1, 1, 6, 9))
    written: list[tuple[torch.Tensor, torch.Tensor]] = []

    def write(index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        written.append((index[mask], wanted[mask]))
        return wanted

    coded = code_modes(first, second, 1, write)
    steps = iter(written)

    def read(index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        indexes, symbols = next(steps)
        assert torch.equal(index[mask], indexes)
        modes = torch.full_like(wanted, 99)  # what is outside the mask does not matter
        modes[mask] = symbols
        return modes

    assert torch.equal(code_modes(first, second, 1, read), coded)
    assert sum(len(symbols) for _, symbols in written) == 6 * 9 - 1
    assert all(int(i.min()) >= 0 and int(i.max()) < MODE_TABLES for i, _ in written)
    wanted[0, 0, 0, 0] = BOTH
    assert torch.equal(coded, wanted)


def test_tables_know_what_they_stand_for() -> None:
    assert {surrounding_of_table(i) for i in range(MODE_TABLES)} == {-2, -1, 0, 1, 2}
