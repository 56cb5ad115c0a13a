"""`make_networks.py SIDES IMAGES VAE VAR [SHARED OWN]`: an autoencoder and VARs that look trained, but never were.

SHARED has one modulation for all blocks, as upstream's --saln=1 makes it. OWN has only the 3 classes of the images.

The autoencoder's features are brought to the scale of its codebook, so that images differ in their tokens. The VAR's
blocks and head are scaled up, so that its distributions are peaked and depend on class and context: a VAR as it is
initialised says the same of every token.
"""

import sys
from pathlib import Path

import torch
from models import VAR, VQVAE
from torchvision.transforms.transforms import CenterCrop, ToTensor
from utils.data import normalize_01_into_pm1, pil_loader

PATCHES = tuple(map(int, sys.argv[1].split("_")))
CLASSES, DEPTH = 1000, 2
LOGIT_STD = 3.0


def read_images(folder: Path) -> torch.Tensor:
    """[N, 3, H, W] in [-1, 1]"""
    side = 16 * PATCHES[-1]
    read = [ToTensor()(CenterCrop((side, side))(pil_loader(path))) for path in sorted(folder.rglob("*.png"))]
    return normalize_01_into_pm1(torch.stack(read))


def make_vae(images: torch.Tensor) -> VQVAE:
    vae = VQVAE(vocab_size=4096, z_channels=32, test_mode=True, share_quant_resi=4, v_patch_nums=PATCHES)
    vae.quantize.embedding.weight.normal_()
    features = vae.quant_conv(vae.encoder(images))  # [N, C, h, w]
    std, mean = torch.std_mean(features, dim=(0, 2, 3))
    vae.quant_conv.weight.div_(std[:, None, None, None])
    vae.quant_conv.bias.sub_(mean).div_(std)
    return vae


def make_var(vae: VQVAE, images: torch.Tensor, shared: bool = False, classes: int = CLASSES) -> VAR:
    size = {"depth": DEPTH, "embed_dim": 64 * DEPTH, "num_heads": DEPTH, "patch_nums": PATCHES}
    var = VAR(vae, classes, attn_l2_norm=True, shared_aln=shared, **size).eval()
    var.init_weights(init_head=1.0, init_std=-1)
    for block in var.blocks:
        gates = block.ada_gss[..., :2, :] if shared else block.ada_lin[-1].bias[: 2 * var.C]
        gates.normal_(std=0.5)  # the two residual branches are all but closed else
    var.class_emb.weight.mul_(10)
    tokens = vae.quantize.idxBl_to_var_input(vae.img_to_idxBl(images))
    var.head.weight.mul_(LOGIT_STD / var(torch.arange(len(images)) % 3, tokens).std())
    return var


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        images = read_images(Path(sys.argv[2]))
        vae = make_vae(images)
        torch.save(vae.state_dict(), sys.argv[3])
        kinds = ({}, {"shared": True}, {"classes": 3})
        for path, kind in zip(sys.argv[4:], kinds, strict=False):
            torch.save(make_var(vae, images, **kind).state_dict(), path)
