"""The ways of fakes beside upstream's own functions: `fakes.py BASE IMAGES OUT`. Writes what the test compares."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from trainer_of import PATCHES, build, real_batch

from ddo_integrations.var.fakes import DrawnFakes


def main(base: str, images: str, out: str) -> None:
    trainer = build(base, str(Path(out).parent), ranks=False)
    reference, vae = trainer.reference, trainer.vae_local
    _, labels = real_batch(images, 6)

    def draw(*, from_pixels: bool, guidance: float = 0.0):
        way = DrawnFakes(reference, vae, from_pixels=from_pixels, guidance=guidance, in_fp32=True)
        return way.draw(labels, torch.Generator().manual_seed(0))

    found: dict[str, torch.Tensor | None] = {}
    with torch.no_grad():
        for guidance in (0.0, 1.5):
            drawn, logp = draw(from_pixels=False, guidance=guidance)
            found[f"tokens {guidance}"], found[f"logp {guidance}"] = drawn.tokens, logp
            log_p = reference(labels, drawn.inputs).log_softmax(-1)
            found[f"forward {guidance}"] = log_p.gather(2, drawn.tokens[..., None]).squeeze(2)
        encoded, found["logp of encoded"] = draw(from_pixels=True)
        found["encoded"], found["inputs"] = encoded.tokens, encoded.inputs

        pyramid = list(found["tokens 0.0"].split([side * side for side in PATCHES], dim=1))
        maps = vae.img_to_idxBl(vae.idxBl_to_img(pyramid, same_shape=True, last_one=True))
        found["encoded by upstream"] = torch.cat(maps, 1)
        found["inputs by upstream"] = vae.quantize.idxBl_to_var_input(maps)

        with torch.autocast("cpu", dtype=torch.bfloat16):
            (fp32, logp_fp32), (_, logp_amp) = (
                DrawnFakes(reference, vae, from_pixels=False, guidance=0.0, in_fp32=full).draw(
                    labels, torch.Generator().manual_seed(0)
                )
                for full in (True, False)
            )
        found["tokens in fp32 under autocast"], found["logp of fp32 under autocast"] = fp32.tokens, logp_fp32
        found["logp of amp under autocast"] = logp_amp
    torch.save(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
