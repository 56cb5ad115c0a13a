"""`sample.py TOKENIZER NETWORK OUT SETS PER_CLASS`: sample with upstream's sampler, without guidance."""

import re
import sys
from pathlib import Path

import numpy as np
import torch
from models import VAR, build_vae_var

from ddo_integrations.demo.data import CLASSES, to_uint8

SIDES = (1, 2, 4)


def load(tokenizer: Path, network: Path) -> VAR:
    state = torch.load(network, weights_only=True)
    depth = len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    vae, var = build_vae_var(device="cpu", patch_nums=SIDES, depth=depth)
    vae.load_state_dict(torch.load(tokenizer, weights_only=True))
    var.load_state_dict(state)
    return var.eval()


def draw(var: VAR, labels: torch.Tensor, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return images [N, 1, 8, 8] in uint8 and the tokens [N, L], which upstream's sampler does not return.

    The number is the share of the tokens that change when the images are encoded again.
    """
    maps: list[torch.Tensor] = []
    watch = var.vae_quant_proxy[0].embedding.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
    images = var.autoregressive_infer_cfg(len(labels), labels, g_seed=seed, cfg=0)  # 1 would be guidance
    watch.remove()
    tokens = torch.cat(maps, 1)
    encoded = torch.cat(var.vae_proxy[0].img_to_idxBl(images * 2 - 1), 1)
    return to_uint8(images[:, :1] * 2 - 1).numpy(), tokens.numpy(), float((encoded != tokens).float().mean())


if __name__ == "__main__":
    tokenizer, network, out, sets, per_class = sys.argv[1:]
    var = load(Path(tokenizer), Path(network))
    labels = torch.arange(CLASSES).repeat_interleave(int(per_class))
    images, tokens, changed = zip(*(draw(var, labels, seed) for seed in range(int(sets))), strict=True)
    with Path(out).open("wb") as file:
        np.savez(file, images=np.stack(images), tokens=np.stack(tokens), changed=np.mean(changed))
