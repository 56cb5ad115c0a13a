"""`make_tokenizer.py DIGITS TOKENIZER TOKENS`: write an autoencoder of VAR with the demo's codes, and the tokens."""

import sys
from pathlib import Path

import numpy as np
import torch
from models import VQVAE
from safetensors.torch import load_file

from ddo_integrations.demo.data import Digits, to_uint8, to_unit

SIDES = (1, 2, 4)
VOCABULARY, CHANNELS, PHIS = 4096, 32, 4  # the values of train.py


def make(codes: torch.Tensor) -> VQVAE:
    """Put the codes of all scales in one codebook. Unused codes differ in a channel that is 0 for every image."""
    vae = VQVAE(vocab_size=VOCABULARY, z_channels=CHANNELS, share_quant_resi=PHIS, v_patch_nums=SIDES)
    for convolution in (vae.quant_conv, vae.post_quant_conv, *vae.quantize.quant_resi.qresi_ls):
        torch.nn.init.dirac_(convolution.weight)
        torch.nn.init.zeros_(convolution.bias)
    book = vae.quantize.embedding.weight.data.zero_()
    codes = codes.flatten(0, 1)
    book[: len(codes), : codes.shape[1]] = codes
    book[len(codes) :, -1] = 10.0
    return vae


def encode(vae: VQVAE, digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens [N, L] of upstream's own quantiser, and the images [N, 1, 8, 8] that they decode to."""
    maps = vae.img_to_idxBl(to_unit(torch.from_numpy(digits.images)).repeat(1, 3, 1, 1))
    images = vae.idxBl_to_img(maps, same_shape=True, last_one=True)[:, :1]
    return torch.cat(maps, 1).numpy(), to_uint8(images).numpy()


if __name__ == "__main__":
    folder, tokenizer, out = map(Path, sys.argv[1:])
    vae = make(load_file(folder / "tokenizer.safetensors")["codes"])
    torch.save(vae.state_dict(), tokenizer)
    tokens, images = encode(vae, Digits(folder))
    np.savez(out, tokens=tokens, images=images)
