"""Write snapshots with the classes of the checkout that stands first on sys.path, as its training loop does.

Run as: python make_snapshots.py edm|edm2 OUT
"""

import copy
import importlib
import pickle
import sys
from pathlib import Path

import dnnlib
import numpy as np
import torch

SIZES = {"img_resolution": 16, "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]}
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "resample_filter": [1, 3, 3, 1]}
EDM = {
    "edm-song": ("EDMPrecond", "EDMLoss", {"model_type": "SongUNet", "label_dim": 10, "augment_dim": 9}),
    "edm-adm": ("EDMPrecond", "EDMLoss", {"model_type": "DhariwalUNet", "label_dim": 10, "use_fp16": True}),
    "vp-song": ("VPPrecond", "VPLoss", {"model_type": "SongUNet", "augment_dim": 9}),
    "ve-ncsnpp": (
        "VEPrecond",
        "VELoss",
        {"model_type": "SongUNet", "label_dim": 10, "channel_mult_noise": 2, **NCSNPP},
    ),
    "iddpm-adm": ("iDDPMPrecond", "EDMLoss", {"model_type": "DhariwalUNet", "label_dim": 10}),
}
STATISTICS = {"fid": {"mu": np.zeros(2048), "sigma": np.eye(2048)}}
AUGMENT = {"p": 0.12, "xflip": 1e8, "yflip": 1, "scale": 1, "rotate_frac": 1, "aniso": 1, "translate_frac": 1}


def perturb(net: torch.nn.Module) -> torch.nn.Module:
    """Away from the initial weights, many of which are zero and would hide what they multiply."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return net


def make(class_name: str, **kwargs):
    return dnnlib.util.construct_class_by_name(class_name=class_name, **kwargs)


def save(path: Path, data) -> None:
    with path.open("wb") as file:
        pickle.dump(data, file)


def edm(out: Path) -> None:
    for name, (precond, loss, kwargs) in EDM.items():
        net = perturb(make(f"training.networks.{precond}", img_channels=3, **SIZES, **kwargs))
        augment = make("training.augment.AugmentPipe", **AUGMENT) if "augment_dim" in kwargs else None
        dataset = dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", path="data.zip", resolution=16)
        data = {"ema": net.eval().requires_grad_(False), "loss_fn": make(f"training.loss.{loss}")}
        save(out / f"{name}.pkl", {**data, "augment_pipe": augment, "dataset_kwargs": dict(dataset)})
    tampered(out, out / "edm-song.pkl")
    hide(out, out / "edm-song.pkl")


def tampered(out: Path, honest: Path) -> None:
    """What an honest constructor would not have written."""
    changes = {
        "gadget": lambda net: net._init_kwargs.update(model_type="weight_init"),
        "bomb": lambda net: net._init_kwargs.update(model_channels=1 << 20),
        "endless": lambda net: net._init_kwargs.update(num_blocks=10**9),
        "setting": lambda net: setattr(net, "sigma_data", 0.7),
    }
    for name, change in changes.items():
        with honest.open("rb") as file:
            data = pickle.load(file)
        change(data["ema"])
        save(out / f"tampered-{name}.pkl", data)
    with honest.open("rb") as file:
        data = pickle.load(file)
    kind = type(data["ema"])
    kind._orig_module_src += "\nopen('pwned', 'w')\n"
    save(out / "tampered-source.pkl", data)


class Hidden:
    """An object whose source writes a file when upstream unpickles it."""

    def __reduce__(self):
        source = "import os\nopen(os.environ['PWNED'], 'w')\nclass Hidden: pass\n"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Hidden", "state": {}}
        return importlib.import_module("torch_utils.persistence")._reconstruct_persistent_obj, (meta,)


def hide(out: Path, honest: Path) -> None:
    """Hide an attacker's object beside an honest network and inside it."""
    places = {
        "list": lambda data: data.update(notes=[Hidden()]),
        "dict": lambda data: data.update(notes={"a": Hidden()}),
        "tuple": lambda data: data.update(notes=(Hidden(),)),
        "nested": lambda data: data.update(notes={"a": [({"b": Hidden()},)]}),
        "attribute": lambda data: setattr(data["ema"], "note", Hidden()),
        "list-in-a-module": lambda data: setattr(next(data["ema"].children()), "notes", [Hidden()]),
        "loss": lambda data: setattr(data["loss_fn"], "notes", [Hidden()]),
        "dataset": lambda data: data["dataset_kwargs"].update(path=[Hidden()]),
    }
    for name, place in places.items():
        with honest.open("rb") as file:
            data = pickle.load(file)
        place(data)
        save(out / f"hidden-{name}.pkl", data)


def edm2(out: Path) -> None:
    for name, encoder, kwargs in (
        ("rgb", "StandardRGBEncoder", {"img_channels": 3, "label_dim": 10}),
        ("latent", "StabilityVAEEncoder", {"img_channels": 4, "label_dim": 0}),
        ("latent-classes", "StabilityVAEEncoder", {"img_channels": 4, "label_dim": 10}),
    ):
        net = perturb(make("training.networks_edm2.Precond", **SIZES, **kwargs))
        data = dnnlib.EasyDict(
            encoder=make(f"training.encoders.{encoder}"),
            dataset_kwargs=dnnlib.EasyDict(path="data.zip"),
            loss_fn=make("training.training_loop.EDM2Loss", P_mean=-0.8, P_std=1.6),
            ema=copy.deepcopy(net).eval().requires_grad_(False).to(torch.float16),
        )
        save(out / f"{name}.pkl", data)
    hide(out, out / "rgb.pkl")
    (out / "hidden-statistics.pkl").write_bytes(pickle.dumps({**STATISTICS, "notes": [Hidden()]}))


if __name__ == "__main__":
    importlib.import_module("torch_utils.persistence")
    torch.manual_seed(0)
    {"edm": edm, "edm2": edm2}[sys.argv[1]](Path(sys.argv[2]))
