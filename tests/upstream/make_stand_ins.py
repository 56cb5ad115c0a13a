"""Write networks of the published ones' shapes, but tiny, with the classes of the checkout on sys.path.

Run as: python make_stand_ins.py edm|edm2 OUT
"""

import importlib
import pickle
import sys
from pathlib import Path

import dnnlib
import torch

TINY = {"model_channels": 32, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
EDM = {"img_resolution": 32, "img_channels": 3, "model_type": "SongUNet", "augment_dim": 9}
NETWORKS = {
    "edm": {
        "edm-cifar10-uncond": ("training.networks.EDMPrecond", {**EDM, "label_dim": 0}),
        "edm-cifar10-cond": ("training.networks.EDMPrecond", {**EDM, "label_dim": 10}),
    },
    "edm2": {
        "edm2-img64-s": (
            "training.networks_edm2.Precond",
            {"img_resolution": 64, "img_channels": 3, "label_dim": 1000},
        ),
        "edm2-img512-l": (
            "training.networks_edm2.Precond",
            {"img_resolution": 64, "img_channels": 4, "label_dim": 1000},
        ),
    },
}
ENCODERS = {"edm2-img64-s": "StandardRGBEncoder", "edm2-img512-l": "StabilityVAEEncoder"}


def main(upstream: str, out: Path) -> None:
    for name, (class_name, settings) in NETWORKS[upstream].items():
        net = dnnlib.util.construct_class_by_name(class_name=class_name, **TINY, **settings)
        data = {"ema": net.eval().requires_grad_(False), "dataset_kwargs": {"path": "data.zip"}}
        if name in ENCODERS:
            data["encoder"] = dnnlib.util.construct_class_by_name(class_name=f"training.encoders.{ENCODERS[name]}")
        with (out / f"{name}.pkl").open("wb") as file:
            pickle.dump(data, file)


if __name__ == "__main__":
    importlib.import_module("torch_utils.persistence")
    torch.manual_seed(0)
    main(sys.argv[1], Path(sys.argv[2]))
