"""The precision of networks of EDM and EDM2 in sampling, and their compilation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ddo_integrations.nvlabs import execution
from ddo_plugin import UserError

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("asked", "half"), [(None, None), ("fp32", False), ("fp16", True)])
def test_the_file_decides_unless_a_precision_is_asked_for(stored: bool, asked: str | None, half: bool | None) -> None:
    network = SimpleNamespace(use_fp16=stored)
    execution.set_precision(network, asked, GPU)
    assert network.use_fp16 is (stored if half is None else half)


def test_fp16_is_refused_on_a_cpu_where_upstream_ignores_it() -> None:
    network = SimpleNamespace(use_fp16=False)
    with pytest.raises(UserError, match="--precision=fp16 needs a GPU"):
        execution.set_precision(network, "fp16", CPU)
    assert network.use_fp16 is False


class Untraceable(nn.Module):
    """A network that torch.compile cannot trace as a whole."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x


def test_a_network_that_cannot_be_compiled_is_one_line() -> None:
    with pytest.raises(UserError, match=r"--compile: torch cannot compile the network \(.*\); drop --compile"):
        execution.compiled(Untraceable())(torch.ones(2))
