"""Write networks with random weights, for the speed parts: `python -m benchmarks.gpu.make_networks UPSTREAM OUT`.

Run it with the upstream's checkout on the path. The sizes are those of the paper, or tiny ones with DDO_DEVICE=cpu.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

TINY = os.environ.get("DDO_DEVICE") == "cpu"
VAE = "vae_ch160v4096z32.pth"
DEPTHS = (2,) if TINY else (16, 30)
VAE_WIDTH = 32 if TINY else 160
PUBLISHED_SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # of the token maps of an image of 256 × 256 pixels
SIDES = (1, 2, 3) if TINY else PUBLISHED_SIDES
SONG = {  # what train.py --arch=ddpmpp sets
    "model_type": "SongUNet",
    "embedding_type": "positional",
    "encoder_type": "standard",
    "decoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
    "model_channels": 16 if TINY else 128,
    "channel_mult": [2, 2, 2],
    "dropout": 0.13,
    "augment_dim": 9,
    "use_fp16": False,
}
EDM2: dict[str, dict[str, Any]] = {
    "edm2-s": {"model_channels": 192, "img_channels": 3, "encoder": "StandardRGBEncoder"},
    "edm2-l": {"model_channels": 320, "img_channels": 4, "encoder": "StabilityVAEEncoder"},
}
EDM2_TINY = {"img_resolution": 16, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1} if TINY else {}


def save(path: Path, **data: Any) -> None:
    """Write a snapshot under another name first, because the parts that wait for it read it as soon as it exists."""
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        pickle.dump(data, file)
    partial.rename(path)


def edm(out: Path) -> None:
    """Write DDPM++ of 56 million parameters at 32×32."""
    from training.loss import EDMLoss
    from training.networks import EDMPrecond

    net = EDMPrecond(img_resolution=32, img_channels=3, label_dim=10, **SONG)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)  # some weights start at 0
    dataset = {"class_name": "training.dataset.ImageFolderDataset", "path": "data.zip"}
    ema = net.eval().requires_grad_(False)
    save(out / "edm.pkl", ema=ema, loss_fn=EDMLoss(), augment_pipe=None, dataset_kwargs=dataset)


def edm2(out: Path) -> None:
    """Write EDM2-S for pixels and EDM2-L for latents."""
    import training.encoders
    from training.networks_edm2 import Precond
    from training.training_loop import EDM2Loss

    for name, size in EDM2.items():
        size = {"img_resolution": 64, "label_dim": 1000, **size}
        encoder = getattr(training.encoders, size.pop("encoder"))()
        net = Precond(**size | EDM2_TINY)
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim == 0:
                    parameter.fill_(0.5)  # gains start at 0, which would hide what they multiply
        dataset = {"class_name": "training.dataset.ImageFolderDataset", "path": "data.zip"}
        ema = net.eval().requires_grad_(False).to(torch.float16)
        save(out / f"{name}.pkl", encoder=encoder, dataset_kwargs=dataset, loss_fn=EDM2Loss(), ema=ema)


def var(out: Path, depths: Sequence[int] = DEPTHS, sides: Sequence[int] = SIDES, vae_width: int = VAE_WIDTH) -> None:
    """Write the image tokenizer and networks of these depths. The GPU initialises them if there is one."""
    import dist
    from models import build_vae_var

    device = dist.get_device()
    for depth in depths:
        vae, network = build_vae_var(device=device, patch_nums=sides, ch=vae_width, depth=depth)
        for parameter in vae.parameters():  # upstream's constructor leaves them uninitialised
            torch.nn.init.normal_(parameter, std=0.02)
        for path, module in ((out / VAE, vae), (out / f"var_d{depth}.pth", network)):
            if not path.exists():
                torch.save(
                    {name: tensor.cpu() for name, tensor in module.state_dict().items()}, path.with_suffix(".tmp")
                )
                path.with_suffix(".tmp").rename(path)


@click.command()
@click.argument("upstream", type=click.Choice(["edm", "edm2", "var"]))
@click.argument("out", type=click.Path(path_type=Path))
def main(upstream: str, out: Path) -> None:
    """Write the networks of one upstream."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    {"edm": edm, "edm2": edm2, "var": var}[upstream](out)


if __name__ == "__main__":
    main()
