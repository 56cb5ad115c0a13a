"""Counts of a forward pass, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddo_plugin import count_forward, count_operations

WIDTH, HIDDEN = 3, 5


class Network(nn.Module):
    """Two linear layers, of which the second is scaled, as EDM2 normalises its weights at every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.scaled = nn.Parameter(torch.ones(1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.plain(x)) @ (2 * self.scaled).T


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operations_and_memory_of_a_forward_pass(device: str) -> None:
    network = Network().to(device)
    counted = count_forward(network, lambda batch: network(torch.zeros(batch, WIDTH, device=device)))
    assert counted.operations == 2 * WIDTH * HIDDEN + 2 * HIDDEN
    assert counted.kept == 4 * (WIDTH + HIDDEN)  # input and hidden layer; relu and the second layer share the latter
    assert counted.kept_once == 4 * HIDDEN  # the scaled weights; the network's own are not counted


def test_operations_without_a_backward_pass() -> None:
    network = Network()
    assert count_operations(lambda: network(torch.zeros(7, WIDTH))) == 7 * (2 * WIDTH * HIDDEN + 2 * HIDDEN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_counts_although_the_fused_kernel_of_a_cpu_is_not_counted(dtype: torch.dtype) -> None:
    batch, heads, length, width = 2, 3, 16, 8
    x = torch.zeros(batch, heads, length, width, dtype=dtype)
    expected = 2 * batch * heads * (2 * length * length * width)  # queries with keys, and weights with values
    assert count_operations(lambda: nn.functional.scaled_dot_product_attention(x, x, x)) == expected
