"""A round of DDO as a change of the configuration that EDM2's train_edm2.py built."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from torch_utils import distributed as dist

from ddo_integrations.edm2 import events, states
from ddo_integrations.nvlabs import checks
from ddo_integrations.nvlabs.checks import typed
from ddo_integrations.nvlabs.compiled import check_compiler
from ddo_integrations.nvlabs.dnnlib import EasyDict, construct_class_by_name
from ddo_plugin import (
    NetworkInfo,
    Reference,
    UserError,
    ddo_values,
    describe_pickle,
    local_file,
    prepare_session,
    refuse_nonfinite,
    target_settings,
)

# A round of the paper on ImageNet-64 (Appendix C), for the flags that were not given.
BATCH, LR, DECAY_BATCHES = 512, 5e-5, 2000
CHECKPOINT_NIMG = 1 << 20  # our choice; the paper does not say
INTERVALS = {  # flag -> name in the configuration, default, number that it must be a multiple of besides the batch
    "duration": ("total_nimg", 6_400_000, 1),
    "status": ("status_nimg", 1 << 17, 1),
    "snapshot": ("snapshot_nimg", 1 << 17, 1024),
    "checkpoint": ("checkpoint_nimg", CHECKPOINT_NIMG, 1024),
}
# Channels of the network -> prefix of upstream's presets for such data, channels of the data, noise levels.
PIXELS = ("img64", 3, {"P_mean": -0.8, "P_std": 1.6})
LATENTS = ("img512", 8, {"P_mean": -0.4, "P_std": 1.0})  # mean and standard deviation of each channel
KINDS = {3: PIXELS, 4: LATENTS}


def configure(c: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Replace network, loss and schedule; refuse what cannot work before anything is written."""
    refuse_nonfinite(options)
    if options["ddo_compile"]:
        check_compiler()
    session = prepare_session("edm2", Path(options["outdir"]), options)
    info: NetworkInfo = session.reference.info
    _refuse_contradictions(options, info)
    own = {}
    if session.objective.trains_on == "fakes":
        own = checks.own_settings(options, c["network_kwargs"]["dropout"])
    else:
        checks.check_exactness(options)
    dataset = construct_class_by_name(**c["dataset_kwargs"])
    if info.channels not in KINDS:
        raise UserError(
            f"--ddo={options['ddo']} has {info.channels} channels; EDM2 networks have 3 (pixels) or 4 (latents)"
        )
    checks.check_real(options, info, dataset, KINDS[info.channels][1])
    checks.check_fakes(options, session)
    _set_schedule(c, options)
    noise = _noise(c, options, session.reference)
    session.settings |= _settings(c, noise, len(dataset)) | {f"--{name}": value for name, value in own.items()}
    states.check(session, c["total_nimg"], c["batch_size"])
    c["network_kwargs"] = EasyDict(
        class_name="ddo_integrations.edm2.networks.start", **target_settings(session.reference) | own
    )
    c["encoder_kwargs"].update(_encoder_settings(c, options))
    c["loss_kwargs"] = EasyDict(
        class_name="ddo_integrations.edm2.loss.DDOLoss",
        noise=noise,
        record={**ddo_values(options), **session.provenance},
    )
    events.watch(session, c["snapshot_nimg"], c["batch_size"])


def _refuse_contradictions(options: Mapping[str, Any], info: NetworkInfo) -> None:
    channels = info.init_kwargs.get("model_channels", options["channels"])
    if typed("channels") and options["channels"] != channels:
        raise UserError(f"--channels={options['channels']}, but the reference has {channels}; drop --channels")
    if typed("preset") and info.channels in KINDS and KINDS[info.channels][0] not in options["preset"]:
        raise UserError(
            f"--preset={options['preset']} is for other data than the reference, which has {info.channels} channels; "
            f"use a preset for {KINDS[info.channels][0]}, or drop --preset"
        )


def _encoder_settings(c: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the reference's own encoder was constructed: the fakes must be decoded by the same encoder."""
    encoder = describe_pickle(local_file(options["ddo"], sha256=options["ddo_sha256"])).objects.get("encoder")
    if encoder is None or c["encoder_kwargs"]["class_name"] != f"training.encoders.{encoder.class_name}":
        return {}
    return encoder.init_kwargs


def _noise(c: Mapping[str, Any], options: Mapping[str, Any], reference: Reference) -> dict[str, float]:
    """Return the noise levels: --P_mean and --P_std, else those of --preset, else of the presets for such data."""
    usual = KINDS[reference.info.channels][2]
    levels = {
        name: c["loss_kwargs"][name] if typed(name) or typed("preset") else usual[name] for name in ("P_mean", "P_std")
    }
    return {**levels, "sigma_data": getattr(reference.network, "sigma_data", 0.5)}


def _settings(c: Mapping[str, Any], noise: Mapping[str, float], images: int) -> dict[str, Any]:
    """Return the settings, besides our options, that a resumed run must share."""
    return {
        "--lr": c["lr_kwargs"]["ref_lr"],
        "--decay": c["lr_kwargs"]["ref_batches"],
        "--batch": c["batch_size"],
        "--seed": c["seed"],
        "--P_mean": noise["P_mean"],
        "--P_std": noise["P_std"],
        "images in --data": images,
    }


def _set_schedule(c: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Set the paper's schedule where upstream's own flags were not given."""
    c["batch_size"] = options["batch"] if typed("batch") else BATCH
    checks.check_batch(c["batch_size"], c["batch_gpu"], dist.get_world_size())
    for flag, (name, default, also) in INTERVALS.items():
        unit = math.lcm(c["batch_size"], also)
        if typed(flag):
            c[name] = _multiple(flag, options[flag], unit)
        else:  # an interval longer than the round would leave it without a snapshot
            c[name] = max(min(default, c.get("total_nimg") or default) // unit, 1) * unit
    if (c["snapshot_nimg"] or 0) > c["total_nimg"]:
        raise UserError(
            f"--duration={c['total_nimg']} ends before the first snapshot at {c['snapshot_nimg']} images, so the round "
            "would leave no network; use a longer --duration, or a shorter --snapshot"
        )
    if options["ddo_pause_after"]:
        c["checkpoint_nimg"] = c["snapshot_nimg"]  # a paused run resumes from any snapshot
    c["lr_kwargs"].update(
        ref_lr=options["lr"] if typed("lr") else LR,
        ref_batches=options["decay"] if typed("decay") else DECAY_BATCHES,
        rampup_Mimg=options["ddo_rampup"],
    )
    c["ema_kwargs"] = EasyDict(class_name="training.phema.PowerFunctionEMA", stds=list(options["ddo_ema"]))


def _multiple(flag: str, value: int, unit: int) -> int | None:
    """Return a number of images that the loop accepts; 0 turns an interval off."""
    if value == 0 and flag != "duration":
        return None
    if value < 1 or value % unit:
        lower = value // unit * unit
        near = f"{lower} or {lower + unit}" if lower > 0 else f"{unit}"
        raise UserError(
            f"--{flag}={value} must be a multiple of {unit}, for example {near}: EDM2's loop counts whole batches"
        )
    return value
