"""An EDM2 network as a generator: what generate_images.py makes of the same seeds, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ddo_integrations.nvlabs.dnnlib import construct_class_by_name
from ddo_plugin import (
    DEPARTS,
    Denoiser,
    DiffusionGenerator,
    Reference,
    SampleGenerators,
    Sampler,
    UserError,
    bind_conditions,
    describe_pickle,
    load_as_stored,
    local_file,
    upstream_device,
)

BATCH, DECODED_TOGETHER = 32, 4  # generate_images.py's
LATENTS = "StabilityVAEEncoder"


def generator(source: str, options: Mapping[str, Any]) -> DiffusionGenerator:
    """The network of a snapshot, ready to be sampled."""
    reference = _load(source, options)
    guide = _guide(options, reference) if takes_guide(options) else None
    info, guidance = reference.info, options["guidance"]
    sampler = Sampler.of(options, (info.channels, info.resolution, info.resolution))

    def solve(denoise: Denoiser, noise: Tensor, streams: SampleGenerators) -> Tensor:
        return sampler.solve(denoise, noise, streams, dtype=torch.float32)

    def denoiser(labels: Tensor | None) -> Denoiser:
        main = bind_conditions(reference.network, labels)
        return main if guide is None else guided(main, bind_conditions(guide.network, labels), guidance)

    settings = {**sampler.settings(), "fp16": bool(getattr(reference.network, "use_fp16", False))}
    if guide is not None:
        settings |= {
            DEPARTS: ["guidance"],
            "guidance": guidance,
            "gnet": {"source": guide.source, "sha256": guide.sha256},
        }
    decode = _decoder(source, options) if info.channels not in (1, 3) else None
    return DiffusionGenerator(reference, solve, denoiser, settings=settings, batch=BATCH, decode=decode)


def guided(main: Denoiser, guide: Denoiser, guidance: float) -> Denoiser:
    """From the guide's estimate through the network's, and beyond for guidance above 1."""
    return lambda noisy, sigma: torch.lerp(guide(noisy, sigma), main(noisy, sigma), guidance)


def _load(source: str, options: Mapping[str, Any]) -> Reference:
    reference = load_as_stored(source, options)
    if reference.info.class_name != "Precond":
        raise UserError(f"{source} is a {reference.info.class_name}, not a network of EDM2; use its own checkout")
    reference.network.to(upstream_device())
    return reference


def takes_guide(options: Mapping[str, Any]) -> bool:
    """Whether a second network takes part. One that is named and then left alone would be a silent mistake."""
    source, guidance = options["gnet"], options["guidance"]
    if guidance != 1 and source is None:
        raise UserError(f"--guidance={guidance} is away from a second network; name it by --gnet")
    if guidance == 1 and source is not None:
        raise UserError(f"--gnet={source} has no effect at --guidance=1, which is the network alone; add --guidance")
    return guidance != 1


def _guide(options: Mapping[str, Any], reference: Reference) -> Reference:
    """The guiding network; it must see and say what the network does."""
    source = options["gnet"]
    guide = _load(source, {**options, "ddo_sha256": options["gnet_sha256"]})
    there, here = ((one.info.channels, one.info.resolution) for one in (guide, reference))
    if there != here:
        raise UserError(f"--gnet={source} has {there} channels and resolution, but the network has {here}")
    if guide.info.label_dim not in (0, reference.info.label_dim):
        raise UserError(
            f"--gnet={source} knows {guide.info.label_dim} classes, but the network {reference.info.label_dim}"
        )
    return guide


def _decoder(source: str, options: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Latents to pixels by the encoder that the snapshot names, built by the checkout when it is first needed."""

    @cache
    def encoder() -> Any:
        found = describe_pickle(local_file(source, sha256=options["ddo_sha256"])).objects.get("encoder")
        if found is None or found.class_name != LATENTS:
            name = "none" if found is None else found.class_name
            raise UserError(f"{source} makes latents, but its encoder is {name}, which cannot decode them")
        made = construct_class_by_name(class_name=f"training.encoders.{LATENTS}", **found.init_kwargs)
        made.batch_size = DECODED_TOGETHER
        try:
            made.init(upstream_device())
        except ImportError as error:
            raise UserError(f"{source} makes latents; to decode them: pip install diffusers ({error})") from None
        return made

    return lambda latents: encoder().decode(latents)
