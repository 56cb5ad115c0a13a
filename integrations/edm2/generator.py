"""EDM2 networks as generators. For the same seeds the images equal those of generate_images.py, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.edm2.encoders import LATENTS, stored_encoder
from ddo_integrations.nvlabs import execution
from ddo_plugin import (
    DEPARTS,
    Denoiser,
    DiffusionGenerator,
    Reference,
    SampleGenerators,
    Sampler,
    Upstream,
    UserError,
    bind_conditions,
    describe_pickle,
    load_as_stored,
    local_file,
    upstream_device,
)

BATCH, DECODED_TOGETHER = 32, 4  # the defaults of generate_images.py


def generator(source: str, options: Mapping[str, Any], upstream: Upstream) -> DiffusionGenerator:
    """Load the network of a snapshot, ready for sampling."""
    reference = _load(source, options, upstream)
    guide = _guide(options, reference, upstream) if takes_guide(options) else None
    forward = execution.prepare(reference.network, options, upstream_device())
    guiding = None if guide is None else execution.prepare(guide.network, options, upstream_device())
    info, guidance = reference.info, options["guidance"]
    sampler = Sampler.of(options, (info.channels, info.resolution, info.resolution))

    def solve(denoise: Denoiser, noise: Tensor, streams: SampleGenerators) -> Tensor:
        return sampler.solve(denoise, noise, streams, dtype=torch.float32)

    def denoiser(labels: Tensor | None) -> Denoiser:
        main = bind_conditions(forward, labels)
        return main if guiding is None else guided(main, bind_conditions(guiding, labels), guidance)

    settings = {**sampler.settings(), **execution.settings(reference.network, options)}
    if guide is not None:
        settings |= {
            DEPARTS: ["guidance"],
            "guidance": guidance,
            "gnet": {"source": guide.source, "sha256": guide.sha256, **_other_precision(guide, reference)},
        }
    decode = _decoder(source, options) if info.channels not in (1, 3) else None
    return DiffusionGenerator(reference, solve, denoiser, settings=settings, batch=BATCH, decode=decode)


def guided(main: Denoiser, guide: Denoiser, guidance: float) -> Denoiser:
    """Interpolate from the guiding network's estimate to the network's, and extrapolate for guidance above 1."""
    return lambda noisy, sigma: torch.lerp(guide(noisy, sigma), main(noisy, sigma), guidance)


def _load(source: str, options: Mapping[str, Any], upstream: Upstream) -> Reference:
    reference = load_as_stored(source, options, upstream)
    if reference.info.class_name != "Precond":
        raise UserError(
            f"{source} is a {reference.info.class_name}, not a network of EDM2; run this in its own upstream's checkout"
        )
    return reference


def _other_precision(guide: Reference, reference: Reference) -> dict[str, bool]:
    """Return the precision of the guiding network for the manifest, if it is not the network's."""
    fp16 = bool(guide.network.use_fp16)
    return {} if fp16 == bool(reference.network.use_fp16) else {"fp16": fp16}


def takes_guide(options: Mapping[str, Any]) -> bool:
    """Return whether a guiding network is used. Refuse a guiding network without guidance, and the reverse."""
    source, guidance = options["gnet"], options["guidance"]
    if guidance != 1 and source is None:
        raise UserError(f"--guidance={guidance} needs a guiding network; add --gnet")
    if options["gnet_sha256"] is not None and source is None:
        raise UserError("--gnet-sha256 verifies a guiding network; add --gnet or drop --gnet-sha256")
    if guidance == 1 and source is not None:
        raise UserError(f"--gnet={source} has no effect with --guidance=1; add --guidance or drop --gnet")
    return guidance != 1


def _guide(options: Mapping[str, Any], reference: Reference, upstream: Upstream) -> Reference:
    """Load the guiding network. Its inputs and outputs must match the network's."""
    source = options["gnet"]
    guide = _load(source, {**options, "ddo_sha256": options["gnet_sha256"]}, upstream)
    guide_shape, shape = ((network.info.channels, network.info.resolution) for network in (guide, reference))
    if guide_shape != shape:
        raise UserError(f"--gnet={source} has channels and resolution {guide_shape}, but the network has {shape}")
    if guide.info.label_dim not in (0, reference.info.label_dim):
        raise UserError(
            f"--gnet={source} has {guide.info.label_dim} classes, but the network has {reference.info.label_dim}"
        )
    return guide


def _decoder(source: str, options: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return the decoder of latents, the encoder that the snapshot names. It is built at its first use."""

    @cache
    def encoder() -> Any:
        file = local_file(source, sha256=options["ddo_sha256"])
        built = stored_encoder(file, describe_pickle(file))
        if type(built).__name__ != LATENTS:
            name = "missing" if built is None else type(built).__name__
            raise UserError(f"{source} generates latents, but its encoder is {name}, which cannot decode them")
        built.batch_size = DECODED_TOGETHER
        try:
            built.init(upstream_device())
        except ImportError as error:
            raise UserError(
                f"{source}: decoding its latents needs diffusers: pip install diffusers ({error})"
            ) from None
        return built

    return lambda latents: encoder().decode(latents)
