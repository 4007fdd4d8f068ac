"""The bits of training are those of the entropy coder, and their slopes have the right direction."""

import numpy as np
import pytest
import torch
from conftest import TINY

from viddiff.codec.entropy import discretised_tables
from viddiff.codec.weights import parametric_tables
from viddiff.networks.layers import IntConv2d
from viddiff.networks.model import VideoModel
from viddiff.training.calibration import SymbolCounts
from viddiff.training.loss import run
from viddiff.training.rates import MAGNITUDES, Rates, rate_aware_round
from viddiff.training.samples import Batch
from viddiff.training.whitening import whiten

TABLES = discretised_tables([0.2, 0.5, 1.0, 2.0, 4.0, 8.0], "laplace")
RATES = Rates.of(TABLES, 1, torch.device("cpu"))


def test_bits_are_those_of_the_tables() -> None:
    symbols = torch.tensor([0.0, 1, -1, 5, -30])
    rows = torch.tensor([0.0, 1, 3, 4, 5])
    expected = TABLES.bits(symbols.numpy().astype(np.int64), rows.numpy().astype(np.int64))
    assert RATES.bits(symbols, rows).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_symbols_beyond_the_lookup_cost_more_and_more() -> None:
    far = torch.tensor([MAGNITUDES - 1.0, 100.0, 400.0])
    bits = RATES.bits(far, torch.full_like(far, 5.0))
    assert bits[0] < bits[1] < bits[2]


def test_slopes_lead_to_fewer_bits() -> None:
    symbols = torch.tensor([3.0, -3.0, 0.0, 6.0], requires_grad=True)
    rows = torch.tensor([2.0, 2.0, 2.0, 1.0], requires_grad=True)
    RATES.bits(symbols, rows).sum().backward()  # type: ignore[no-untyped-call]
    assert symbols.grad is not None
    assert rows.grad is not None
    assert symbols.grad[0] > 0 > symbols.grad[1], "towards zero"
    assert rows.grad[2] > 0, "a zero wants a narrower table"
    assert rows.grad[3] < 0, "a large symbol wants a wider one"


def test_values_that_round_to_zero_are_held_back_in_proportion() -> None:
    values = torch.tensor([0.0, 0.1, 0.2, -0.2, 0.45], requires_grad=True)
    rows = torch.full((5,), 2.0)
    symbols = rate_aware_round(values, lambda s: RATES.bits(s, rows), 0.1, 100)
    assert not symbols.any()
    RATES.bits(symbols, rows, values).sum().backward()  # type: ignore[no-untyped-call]
    slopes = values.grad
    assert slopes is not None
    assert slopes[0] == 0
    assert slopes[2] == pytest.approx(2 * slopes[1].item())
    assert slopes[3] == -slopes[2]
    assert slopes[4] > slopes[2]


def test_rounding_takes_the_cheapest_in_rate_and_distortion() -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.laplace(0, 1.5, 500).astype(np.float32))
    rows = torch.from_numpy(rng.integers(0, 6, 500).astype(np.float32))
    trade = 0.15
    got = rate_aware_round(values, lambda s: RATES.bits(s, rows), trade, 100)
    options = torch.arange(-12.0, 13.0)[:, None].expand(-1, 500)
    costs = (values - options) ** 2 + trade * RATES.bits(options, rows.expand(25, -1))
    cost = (values - got) ** 2 + trade * RATES.bits(got, rows)
    nearest = values.round()
    plain = (values - nearest) ** 2 + trade * RATES.bits(nearest, rows)
    assert (cost <= plain + 1e-5).all()
    assert cost.sum() <= 1.01 * costs.min(0).values.sum()


def test_counts_move_the_tables() -> None:
    counts = SymbolCounts(parametric_tables())
    before = counts.tables().z
    counts.count("z", np.full(100_000, 7), np.full(100_000, 40))
    after = counts.tables().z
    one, at = np.array([7]), np.array([40])
    assert after.bits(one, at)[0] < 1.1 < before.bits(one, at)[0]
    assert after.bits(-one, at)[0] < 1.1, "tables are symmetric"
    assert (after.frequencies[41] == before.frequencies[41]).all()
    counts.count("z", np.full(100_000, 0), np.full(100_000, 40), np.full(100_000, 9.0, np.float32))
    assert counts.tables().z.bits(np.array([0]), at)[0] < 0.5, "weights count"


def test_a_pass_reaches_every_parameter_and_reports_its_symbols() -> None:
    torch.manual_seed(0)
    model = VideoModel(TINY).train()
    pictures = torch.randint(0, 1024, (3, 4, 6, 16, 16)).float()
    step, level = torch.tensor([20, 40, 55, 70]), torch.tensor([0, 1, 2, 3])
    batch = Batch(pictures[0], pictures[1], pictures[2], step, level, torch.ones(4))
    tables = parametric_tables()
    cpu = torch.device("cpu")
    seen: dict[str, int] = {}

    def observe(kind: str, symbols: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> None:
        assert symbols.shape == rows.shape == weights.shape
        seen[kind] = seen.get(kind, 0) + len(symbols)

    output = run(model, batch, Rates.of(tables.y, 12, cpu), Rates.of(tables.z, 1, cpu), observe)
    (output.bits_y.sum() + output.bits_z.sum() + output.reconstruction.sum()).backward()  # type: ignore[no-untyped-call]
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert not silent
    assert seen.keys() == {"y", "z"}
    assert 0 < seen["y"] <= 4 * TINY.latent * 16


def test_whitened_steps_are_gentle_where_inputs_are_large() -> None:
    torch.manual_seed(0)
    layer = IntConv2d(3, 2).train()
    model = torch.nn.ModuleDict({"layer": layer})
    common = 500 * torch.randn(1, 1, 40, 40)
    x = common + 5 * torch.randn(1, 3, 40, 40)  # three inputs that are nearly the same
    whitened = whiten(model, lambda: layer(x))["layer"]
    together, apart = torch.tensor([1.0, 1, 1, 0]), torch.tensor([1.0, -1, 0, 0])
    assert (whitened.transform @ together).norm() < 0.3 < 1 < (whitened.transform @ apart).norm()
    before = layer.weight.detach().clone()
    loss = ((layer(x) - x[:, :2]) ** 2).mean()
    loss.backward()
    whitened.gather()
    assert whitened.step.grad is not None
    with torch.no_grad():
        whitened.step.sub_(1e-5 * whitened.step.grad)
    whitened.apply()
    assert not torch.equal(layer.weight, before)
    assert not whitened.step.any()
    assert ((layer(x) - x[:, :2]) ** 2).mean() < loss
