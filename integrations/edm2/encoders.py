"""The encoder that a snapshot of EDM2 names, built by the checkout's class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddo_integrations.nvlabs.dnnlib import construct_class_by_name
from ddo_plugin import Contents, UserError

RGB, LATENTS = "StandardRGBEncoder", "StabilityVAEEncoder"
VAE = "stabilityai/sd-vae-ft-mse"  # upstream's default, and the only one of its release


def stored_encoder(file: Path, contents: Contents) -> Any:
    """Build the encoder that a snapshot names, or return None. The class and the decoder are among upstream's."""
    stored = contents.objects.get("encoder")
    if stored is None:
        return None
    if stored.class_name not in (RGB, LATENTS):
        raise UserError(f"{file}: its encoder is a {stored.class_name}, which EDM2 does not have")
    _check(file, stored.init_kwargs)
    try:
        return construct_class_by_name(class_name=f"training.encoders.{stored.class_name}", **stored.init_kwargs)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{file}: its {stored.class_name} cannot be built ({type(error).__name__})") from None


def encoder_entry(file: Path, contents: Contents) -> Mapping[str, Any]:
    """Return the entry of a snapshot that upstream's sampler reads beside the network."""
    return {"encoder": stored_encoder(file, contents)}


def _check(file: Path, arguments: Mapping[str, Any]) -> None:
    """Refuse a decoder of a stranger: upstream would download it, or read it from a folder, and load it."""
    name = arguments.get("vae_name", VAE)
    if name != VAE:
        raise UserError(f"{file}: its encoder would load the decoder {str(name)[:80]!r}; only {VAE} is loaded")
