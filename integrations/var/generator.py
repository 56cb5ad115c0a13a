"""VAR networks as generators: tokens without guidance for reference sets, images with upstream's settings."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import models
import torch
from models import build_vae_var
from models.helpers import gumbel_softmax_with_rng, sample_with_top_k_top_p_
from torch import Tensor

from ddo_integrations.var import networks, tokenizer
from ddo_integrations.var.draw import Drawn, sample, through_pixels
from ddo_integrations.var.fakes import Batch, inputs_of
from ddo_integrations.var.scoring import Scorer
from ddo_plugin import DEPARTS, Reference, SampleGenerators, UserError, sha256_file, upstream_device

BATCH = 25  # the default of the release's VAR_sample.py
PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Sampler:
    """The sampler's options."""

    cfg: float
    top_k: int
    top_p: float
    more_smooth: bool
    precision: str
    through_pixels: bool

    @property
    def described(self) -> dict[str, Any]:
        """Return the settings for the manifest. Earlier versions had no --through-pixels, so only True is named."""
        return {name: value for name, value in vars(self).items() if name != "through_pixels" or value}

    @property
    def departs_by(self) -> list[str]:
        """Return the settings that change the distribution of the samples, which DDO needs unchanged."""
        return [name for name in ("cfg", "top_k", "top_p", "more_smooth") if getattr(self, name)]


class TokenGenerator:
    """Samples token pyramids, or images with --more-smooth, because smoothed embeddings correspond to no token."""

    def __init__(self, var: Any, vae: Any, vae_file: Path, reference: Reference, sampler: Sampler):
        self.var, self.vae, self.sampler = var, vae, sampler
        self.device, self.batch = upstream_device(), BATCH
        self.reference = {"source": reference.source, "sha256": reference.sha256}
        side = 16 * var.patch_nums[-1]
        self.kind: Literal["images", "tokens"] = "images" if sampler.more_smooth else "tokens"
        self.shape: tuple[int, ...] = (3, side, side) if sampler.more_smooth else (var.L,)
        self.dtype = "uint8" if sampler.more_smooth else "int16"
        self.classes: int = var.num_classes
        departs = {DEPARTS: names} if (names := sampler.departs_by) else {}
        decoder = {"source": str(vae_file), "sha256": sha256_file(vae_file)}
        self.settings: Mapping[str, Any] = {"name": "autoregressive", **sampler.described, "vae": decoder, **departs}

    @torch.no_grad()
    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        labels = self._random_labels(streams) if labels is None else labels.to(self.device, torch.long)
        with self._precision():
            drawn = self._draw(streams, labels)
            if self.kind == "images":
                decoded = self.vae.fhat_to_img(drawn.f_hat)
                streams.check(decoded)
                return self._to_images(decoded), labels
        tokens = through_pixels(self.vae, drawn.f_hat) if self.sampler.through_pixels else drawn.tokens
        return tokens.to(torch.int16), labels

    @torch.no_grad()
    def logp(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None, "`sample` always returns class numbers"
        tokens = samples.to(self.device, torch.long)
        inputs = inputs_of(self.var.vae_quant_proxy[0], tokens)
        with self._precision():
            logp, _ = Scorer(self.var, self.var)(Batch(labels, tokens, inputs))
        return logp

    @torch.no_grad()
    def images(self, samples: Tensor) -> Tensor:
        if self.kind == "images":
            return samples
        scales = [side * side for side in self.var.patch_nums]
        with self._precision():
            pyramid = list(samples.to(self.device, torch.long).split(scales, dim=1))
            return self._to_images(self.vae.idxBl_to_img(pyramid, same_shape=True, last_one=True))

    def _random_labels(self, streams: SampleGenerators) -> Tensor:
        """Draw classes with the call of upstream's sampler, so that a seed gives upstream's class and image."""
        even = self.var.uniform_prob
        drawn = [torch.multinomial(even, 1, replacement=True, generator=generator) for generator in streams.generators]
        return torch.cat(drawn).flatten()

    def _draw(self, streams: SampleGenerators, labels: Tensor) -> Drawn:
        settings, generators = self.sampler, streams.generators

        def choose(logits: Tensor) -> Tensor:
            streams.check(logits)
            each = [
                sample_with_top_k_top_p_(row[None], top_k=settings.top_k, top_p=settings.top_p, rng=generator)
                for row, generator in zip(logits.clone(), generators, strict=True)  # the function changes its argument
            ]
            return torch.cat(each).squeeze(-1)

        def smooth(tokens: Tensor, logits: Tensor, ratio: float) -> Tensor:
            tau = max(0.27 * (1 - 0.95 * ratio), 0.005)  # upstream's schedule
            sharpened = (logits * (1 + ratio)).split(1)
            soft = [
                gumbel_softmax_with_rng(row, tau=tau, hard=False, dim=-1, rng=generator)
                for row, generator in zip(sharpened, generators, strict=True)
            ]
            embedded: Tensor = torch.cat(soft) @ self.var.vae_quant_proxy[0].embedding.weight
            return embedded

        embed = smooth if settings.more_smooth else None
        return sample(self.var, labels, choose, guidance=settings.cfg, embed=embed)

    def _precision(self) -> torch.autocast:
        dtype = PRECISIONS[self.sampler.precision]
        return torch.autocast(self.device.type, enabled=dtype is not None, dtype=dtype)

    @staticmethod
    def _to_images(decoded: Tensor) -> Tensor:
        return ((decoded.float() + 1) / 2 * 255).to(torch.uint8)  # the release truncates here and does not round


def generator(source: str, options: Mapping[str, Any]) -> TokenGenerator:
    """Load a network from a file of plain weights, with the image tokenizer, ready for sampling."""
    if options["more_smooth"] and options["through_pixels"]:
        raise UserError(
            "--through-pixels encodes images to tokens again, but --more-smooth samples images; drop one of the two"
        )
    reference = networks.load_reference(source, options["ddo_sha256"], flag="--network")
    weights: networks.Weights = reference.info
    if options["top_k"] > weights.vocabulary:
        raise UserError(
            f"--top-k={options['top_k']}: the network has only {weights.vocabulary} tokens; 0 disables top-k"
        )
    file = tokenizer.find(options["vae"], Path(models.__file__).parents[1])
    with redirect_stdout(io.StringIO()):  # upstream's constructors print
        vae, var = build_vae_var(
            device=upstream_device(),
            patch_nums=weights.sides,
            num_classes=weights.classes,
            depth=weights.depth,
            shared_aln=weights.shared_modulation,
            attn_l2_norm=weights.normalised_attention,
        )
    tokenizer.fill(vae, file)
    networks.fill(var, reference)
    networks.make_exact(var)
    for network in (vae, var):
        network.eval()  # weights that require no gradients would be converted at every use under autocast
    names = ("cfg", "top_k", "top_p", "more_smooth", "precision", "through_pixels")
    return TokenGenerator(var, vae, file, reference, Sampler(**{name: options[name] for name in names}))
