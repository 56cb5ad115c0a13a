"""Load snapshots in our way and in upstream's, and print as JSON what differs. Run as: compare_snapshots.py FILE..."""

import json
import pickle
import sys
from pathlib import Path

import torch

from ddo_plugin.snapshots.pickles import contents, network


def outputs(net: torch.nn.Module) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (4, net.img_channels, net.img_resolution, net.img_resolution)
    images = torch.randn(shape, generator=generator)
    labels = torch.eye(net.label_dim)[[0, 3, 5, 9]] if net.label_dim else None
    return [net(images * sigma, torch.full((4,), sigma), labels) for sigma in (0.002, 0.05, 0.5, 5.0, 80.0)]


def same_state(ours: torch.nn.Module, stock: torch.nn.Module) -> bool:
    a, b = ours.state_dict(), stock.state_dict()
    return list(a) == list(b) and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


def same_outputs(ours: torch.nn.Module, stock: torch.nn.Module) -> bool:
    return all(map(torch.equal, outputs(ours), outputs(stock)))


def compare(path: Path) -> dict:
    before = set(sys.modules)
    loaded, description = network.load(path), contents.describe_pickle(path, checkout=Path(sys.path[1]))
    ran = [name for name in set(sys.modules) - before if name.startswith("_imported_module_")]
    with path.open("rb") as file:
        stock = pickle.load(file)["ema"]
    other = network.load(path).module
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
        return {
            "ran": ran,
            "state": same_state(loaded.module, stock),
            "outputs": same_outputs(loaded.module, stock),
            "fp32": same_outputs(loaded.module.to(torch.float32), stock.to(torch.float32)),
            "another network": same_outputs(other, stock),
            "settings": all(getattr(loaded.module, name) == getattr(stock, name) for name in settings(stock)),
            "source": loaded.source_matches,
            "local sources": [source.local for source in description.sources],
            "trusted info": network.load(path, trust=True).info == loaded.info,
            "override": not any(fp16(path, trust, {"use_fp16": False}) for trust in (False, True)),
            "no override": fp16(path, False, None) == fp16(path, True, None) == stock.use_fp16,
            "described": description.network == loaded.info,
            "refusals": [*description.refusals, *([description.damage] if description.damage else [])],
        }


def fp16(path: Path, trust: bool, overrides: dict | None) -> bool:
    return network.load(path, trust=trust, overrides=overrides).module.use_fp16


def settings(net: torch.nn.Module) -> list[str]:
    return [name for name in vars(net) if not name.startswith("_")]


if __name__ == "__main__":
    print(json.dumps({Path(name).stem: compare(Path(name)) for name in sys.argv[1:]}))
