"""For the tests' scripts: VAR's components, built as train.py builds them, in this process or in a rank of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddo_plugin.checkouts import compat
from ddo_plugin.finetuning.session import prepare_session

compat.apply()

import dist  # noqa: E402
from models import build_vae_var  # noqa: E402
from trainer import VARTrainer  # noqa: E402, F401  # for the scripts: compat must have come first
from utils.amp_sc import AmpOptimizer  # noqa: E402
from utils.data import normalize_01_into_pm1, pil_loader  # noqa: E402

from ddo_integrations.var.round import Round  # noqa: E402
from ddo_integrations.var.trainer import DDOTrainer  # noqa: E402

PATCHES = (1, 2, 3)
OPTIONS = {
    "ddo_objective": "ddo",
    "ddo_alpha": 2.0,
    "ddo_beta": 0.5,
    "ddo_round": None,
    "ddo_sha256": None,
    "ddo_fakes": None,
    "ddo_fakes_from": "pixels",
    "ddo_fakes_cfg": 0.0,
    "ddo_fakes_precision": "fp32",
}


def build(base: str, outdir: str, *, ranks: bool, accumulation: int = 1, lr: float = 0.0, **own: Any) -> DDOTrainer:
    """A trainer of a round from `base`, whose optimizer is plain gradient descent without clipping."""
    dist.initialize()
    options = {**OPTIONS, "ddo": base, **own}
    session = prepare_session("var", Path(outdir), options)
    session.position = Round(session, 100, accumulation, snapshot_steps=100, state_steps=None, seed=0)
    vae, var = build_vae_var(device=dist.get_device(), patch_nums=PATCHES, depth=2)
    vae.load_state_dict(torch.load("vae_ch160v4096z32.pth"))
    wrapped = torch.nn.parallel.DistributedDataParallel(var) if ranks else _Alone(var)
    names, parameters = zip(*var.named_parameters(), strict=True)
    optimizer = AmpOptimizer(0, torch.optim.SGD(parameters, lr=lr), names, parameters, 0.0, accumulation)
    return DDOTrainer(
        device=dist.get_device(),
        patch_nums=PATCHES,
        resos=tuple(16 * side for side in PATCHES),
        vae_local=vae,
        var_wo_ddp=var,
        var=wrapped,
        var_opt=optimizer,
        label_smooth=0.0,
    )


class _Alone(torch.nn.Module):
    require_backward_grad_sync = False

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


def real_batch(folder: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 3, 48, 48] in [-1, 1] and their classes, from all classes in turn."""
    from torchvision.transforms.transforms import CenterCrop, ToTensor

    paths = sorted(Path(folder).rglob("*.png"), key=lambda path: (path.name, path.parent.name))[:count]
    images = [normalize_01_into_pm1(ToTensor()(CenterCrop((48, 48))(pil_loader(path)))) for path in paths]
    return torch.stack(images), torch.tensor([int(path.parent.name) for path in paths])


def no_logging() -> dict[str, Any]:
    """What the loop hands to a step besides its batch."""
    from utils.misc import DistLogger, MetricLogger

    return {"metric_lg": MetricLogger(), "tb_lg": DistLogger(None, verbose=False), "prog_si": -1, "prog_wp_it": 0.0}
