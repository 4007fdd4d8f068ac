"""Muon beside AdamW in one optimiser."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from viddiff.networks.layers import IntConv2d
from viddiff.training.muon import MuonWithAdamW, nearly_orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(shape) * torch.linspace(1e-5, 1e-4, shape[1])
    matrix[0] *= 3
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert values.max() > 4 * values.min()
    turned = left.T @ nearly_orthogonal(matrix) @ right.T
    assert 0.3 < turned.diagonal().min() <= turned.diagonal().max() < 1.3
    assert (turned - turned.diagonal().diag()).abs().max() < 1e-3


def test_steps_are_those_of_pytorch() -> None:
    """Apart from its bfloat16."""
    torch.manual_seed(2)
    weight, bias = nn.Parameter(torch.randn(12, 30, 1, 1)), nn.Parameter(torch.randn(12))
    same_weight, same_bias = nn.Parameter(weight.detach().flatten(1).clone()), deepcopy(bias)
    tried = MuonWithAdamW([weight], [bias], 0.01)
    muon = torch.optim.Muon(
        [same_weight], 0.01, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW([same_bias], 0.01, betas=(0.95, 0.99), weight_decay=0.0)
    for _ in range(5):
        before = weight.detach().clone()
        weight.grad, bias.grad = torch.randn_like(weight), torch.randn_like(bias)
        same_weight.grad, same_bias.grad = weight.grad.flatten(1), bias.grad.clone()
        for optimizer in (tried, muon, adam):
            optimizer.step()
        moved = (weight - before).abs().max().item()
        assert (weight.flatten(1) - same_weight).abs().max().item() < 0.1 * moved
        torch.testing.assert_close(bias, same_bias)


def test_a_restored_optimiser_goes_on() -> None:
    torch.manual_seed(3)
    network = nn.Sequential(IntConv2d(4, 6), IntConv2d(6, 6, kernel=3))
    network.add_module("tail", IntConv2d(6, 2))
    optimizer = MuonWithAdamW.of(network, 0.01)
    matrices = optimizer.param_groups[0]["params"]
    assert [weight is network[0].weight for weight in matrices] == [True]
    gradients = [[torch.randn_like(p) for p in network.parameters()] for _ in range(4)]

    def move(network: nn.Module, optimizer: MuonWithAdamW, steps: slice) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.02
        for step in gradients[steps]:
            for parameter, gradient in zip(network.parameters(), step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    move(network, optimizer, slice(0, 2))
    again = deepcopy(network)
    restored = MuonWithAdamW.of(again, 0.5)
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    move(network, optimizer, slice(2, 4))
    move(again, restored, slice(2, 4))
    for a, b in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
