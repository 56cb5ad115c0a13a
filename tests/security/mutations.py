"""Mutate small files of each kind and open them: everything but a result or a UserError is a failure.

Run as `python -m tests.security.mutations COUNT SEED`: prints JSON, the count and the failures.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tests.security.pieces import network, pickled
from tests.security.readers import TINY, limit, watch

OPCODES = b".Rb0(t)}]euasQ\x93\x81\x94\x92\x8c\x8e\x96NK\x85\x86\x87hjqr\x82\x95"


def originals() -> dict[str, bytes]:
    """Return a small file of each kind."""
    weights = {"class_emb.weight": torch.zeros(3, 128), "word_embed.weight": torch.zeros(128, 4)}
    weights |= {"pos_1LC": torch.zeros(1, 5, 128), "head.weight": torch.zeros(7, 128), "head.bias": torch.zeros(7)}
    weights |= {"lvl_1L": torch.tensor([[0, 1, 1, 1, 1]]), "attn_bias_for_masking": torch.zeros(1, 1, 5, 5)}
    weights |= {f"blocks.{number}.ffn.fc1.weight": torch.zeros(2, 2) for number in range(2)}
    native = {"epoch": 1, "iter": 2, "trainer": {"var_wo_ddp": weights, "var_opt": {"optimizer": {"state": {}}}}}
    native["trainer"] |= {"vae_local": {"w": torch.ones(2)}, "config": {"prog_it": 1}}
    statistics = {"fid": {"mu": np.zeros(3), "sigma": np.eye(3)}, "num_images": 5}
    return {
        "network": pickled(network()),
        "statistics": pickle.dumps(statistics),
        "weights": _saved(weights),
        "checkpoint": _saved(native),
        "legacy": _saved(native, _use_new_zipfile_serialization=False),
    }


def _saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def mutated(whole: bytes, draw: Random) -> bytes:
    """Change some bytes, take some out, repeat some or cut the end off."""
    data = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place, length = draw.randrange(len(data)), draw.choice((1, 2, 4, 16))
        kind = draw.randrange(6)
        if kind == 0:
            data[place] = draw.randrange(256)
        elif kind == 1:
            data[place] = draw.choice(OPCODES)
        elif kind == 2:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length * draw.choice((1, 20))]
        else:
            data[place : place + length] = b"\xff" * length
        data = data or bytearray(b".")
    return bytes(data[: draw.randrange(1, len(data))] if draw.random() < 0.05 and len(data) > 1 else data)


def readers() -> list[Callable[[Path], object]]:
    from ddo_integrations.var import convert, networks
    from ddo_plugin.evaluation.real_statistics import open_standard
    from ddo_plugin.snapshots.pickles import network as reader
    from ddo_plugin.snapshots.pickles.contents import describe_pickle

    def converted(source: Path, like: Path | None) -> None:
        Path("out.pth").unlink(missing_ok=True)
        convert.convert(source, Path("out.pth"), like)

    return [
        describe_pickle,
        lambda path: reader.load(path, classes={"Tiny": "tiny_net"}),
        lambda path: open_standard(str(path)),
        lambda path: networks.read_weights(path, "--ddo"),
        lambda path: converted(path, None),
        lambda path: converted(Path("whole.pth"), path),
    ]


def run(count: int, seed: int) -> dict[str, Any]:
    """Open `count` mutated files by each reader."""
    from ddo_plugin.base.errors import UserError

    files, draw, events, failures = originals(), Random(seed), [], {}
    Path("tiny_net.py").write_text(TINY)
    Path("whole.pth").write_bytes(files["weights"])
    sys.path.insert(0, str(Path.cwd()))
    path, chosen = Path("mutated.pkl"), readers()
    limit(1 << 20)
    watch(events)
    for number in range(count):
        kind = draw.choice(list(files))
        path.write_bytes(mutated(files[kind], draw))
        for read in chosen:
            try:
                read(path)
            except UserError as error:
                if "\n" in error.message:
                    failures[f"{number} {kind}"] = error.message
            except Exception:
                failures[f"{number} {kind}"] = traceback.format_exc()[-800:]
    return {"count": count, "executed": [*events, *map(str, Path().glob("pwned"))], "failures": failures}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
