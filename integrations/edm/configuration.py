"""A round of DDO as a change of the configuration that EDM's train.py built."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch_utils import distributed as dist

from ddo_integrations.edm import events
from ddo_integrations.nvlabs import checks
from ddo_integrations.nvlabs.checks import typed
from ddo_integrations.nvlabs.dnnlib import EasyDict, construct_class_by_name
from ddo_plugin import Finetuning, NetworkInfo, UserError, ddo_values, sha256_file, target_settings
from ddo_plugin.finetuning import session as finetuning
from ddo_plugin.snapshots import sidecar, training_state
from ddo_plugin.snapshots.pickles import contents

# A round of the paper on CIFAR-10 (Appendix C), for the flags that were not given.
DURATION_MIMG, LR, EMA_MIMG, SNAPSHOT_TICKS, DUMP_TICKS = 1.5, 1.5e-4, 0.25, 1, 10

SEEDS = 1 << 31  # as many as upstream draws from

# Flags whose settings the reference decides.
ARCHITECTURE = {
    "arch": (
        "model_type",
        "embedding_type",
        "encoder_type",
        "decoder_type",
        "channel_mult_noise",
        "resample_filter",
    ),
    "cbase": ("model_channels",),
    "cres": ("channel_mult",),
}


def configure(c: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Replace network, loss and schedule; everything that cannot work is refused here, before anything is written."""
    if typed("transfer"):
        raise UserError(
            "--transfer and --ddo both say where to start; --ddo starts from the reference, drop --transfer"
        )
    checks.check_numbers(options)
    run = finetuning.prepare("edm", _same_on_all_ranks(c["run_dir"]), options)
    info: NetworkInfo = run.reference.info
    _refuse_contradictions(c, options, info)
    dataset = construct_class_by_name(**c["dataset_kwargs"])
    checks.check_real(options, info, dataset, info.channels or 0)
    checks.check_fakes(options, run)
    if options["ddo_pause_after"] and not options["ddo_continue"]:
        raise UserError("--ddo-pause-after needs --ddo-continue, by which the same command goes on later; add it")
    _set_schedule(c, options)
    run.native = _settings(c, len(dataset))
    if options["ddo_continue"] and not typed("resume"):
        _go_on(c, run.run.outdir)
    if c.get("resume_state_dump"):
        _check_resume(c, run)
    checks.check_batch(c["batch_size"], c.get("batch_gpu"), dist.get_world_size())
    _set_network(c, run)
    if c.get("resume_kimg", 0) >= c["total_kimg"]:
        finetuning.leave_if_continued(options, Path(c["resume_state_dump"]))
    if c.get("resume_state_dump"):
        run.leave_if_paused(sidecar.step(Path(c["resume_pkl"])))
    events.watch(run, c["batch_size"], c.get("resume_kimg", 0) * 1000, c["total_kimg"] * 1000)
    c["loss_kwargs"] = EasyDict(
        class_name="ddo_integrations.edm.loss.DDOLoss",
        noise={"sigma_data": getattr(run.reference.network, "sigma_data", 0.5)},
        record={**ddo_values(options), **run.run.provenance, "settings": run.settings()},
    )


def _same_on_all_ranks(run_dir: str | None) -> Path:
    """Upstream's train.py knows the output folder on the first rank alone."""
    told = [run_dir]
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(told, src=0)
    assert told[0] is not None
    return Path(told[0])


def _refuse_contradictions(c: Mapping[str, Any], options: Mapping[str, Any], info: NetworkInfo) -> None:
    asked = c["network_kwargs"]
    for flag, settings in ARCHITECTURE.items():
        for name in settings if typed(flag) else ():
            there = info.init_kwargs.get(name, asked.get(name))
            if name in asked and _plain(asked[name]) != _plain(there):
                raise UserError(
                    f"--{flag}={options[flag]} means {name}={asked[name]}, but the reference has {there}; drop --{flag}"
                )
    if typed("precond") and asked["class_name"] != f"training.networks.{info.class_name}":
        raise UserError(f"--precond={options['precond']}: the reference is a {info.class_name}; drop --precond")
    checks.check_exactness(options)
    if typed("augment") and options["augment"] and not info.augment_dim:
        raise UserError(f"--augment={options['augment']}: the reference was trained without; drop --augment")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _go_on(c: MutableMapping[str, Any], outdir: Path) -> None:
    """As --resume would, from the newest state whose snapshot is what its sidecar says; both are told of once written.

    Upstream's data and noise would begin as they did at the start of the round: another seed makes them others.
    """
    told = {file.stem.split("-")[-1]: file for file in sidecar.snapshots(outdir)}
    states = {file.stem.split("-")[-1]: file for file in outdir.glob("training-state-*.pt")}
    for kimg in sorted(told.keys() & states.keys(), key=int, reverse=True):
        snapshot, state = told[kimg], states[kimg]
        if training_state.is_whole(state) and sha256_file(snapshot) == sidecar.sha256(snapshot):
            c.update(resume_pkl=str(snapshot), resume_kimg=int(kimg), resume_state_dump=str(state))
            c["seed"] = (c["seed"] + int(kimg)) % SEEDS
            return


def _check_resume(c: Mapping[str, Any], run: Finetuning) -> None:
    """Upstream would load whatever parts of the old network fit, and say nothing."""
    snapshot, state = Path(c["resume_pkl"]), Path(c["resume_state_dump"])
    try:
        record = json.loads((state.parent / "training_options.json").read_text())["loss_kwargs"]["record"]
        earlier = record["reference"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--resume={state} is no state of a DDO run; to start a round from a network, drop it"
        ) from None
    if earlier["sha256"] != run.reference.sha256:
        raise UserError(
            f"--resume={state} belongs to a round against {earlier['source']} (sha256 {earlier['sha256'][:12]}…), "
            f"not against --ddo={run.reference.source}"
        )
    run.check_same(record["settings"], state)
    if not snapshot.is_file() or contents.describe(snapshot).damage:
        raise UserError(f"--resume={state}: {snapshot.name}, the network beside it, is missing or damaged; use another")
    if not training_state.is_whole(state):
        raise UserError(f"--resume={state} is damaged, as by a kill while it was written; use an earlier one")


def _set_network(c: MutableMapping[str, Any], run: Finetuning) -> None:
    c["network_kwargs"] = EasyDict(
        class_name="ddo_integrations.edm.networks.start",
        preconditioning=run.reference.info.class_name,
        **target_settings(run.reference),
    )
    if not run.reference.info.augment_dim:
        c.pop("augment_kwargs", None)


def _settings(c: Mapping[str, Any], images: int) -> dict[str, Any]:
    """What decides how a round goes on, besides our options. Not the seed: that is another on purpose."""
    return {
        "--lr": c["optimizer_kwargs"]["lr"],
        "--batch": c["batch_size"],
        "--ema": c["ema_halflife_kimg"] / 1000,
        "images in --data": images,
    }


def _set_schedule(c: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """The paper's round, where upstream's own flags do not say otherwise."""
    if not typed("duration"):
        c["total_kimg"] = int(DURATION_MIMG * 1000)
    if not typed("lr"):
        c["optimizer_kwargs"]["lr"] = LR
    if not typed("ema"):
        c["ema_halflife_kimg"] = int(EMA_MIMG * 1000)
    if not typed("snap"):
        c["snapshot_ticks"] = SNAPSHOT_TICKS
    if options["ddo_pause_after"]:
        c["state_dump_ticks"] = c["snapshot_ticks"]  # it goes on from any of them
    elif not typed("dump"):
        c["state_dump_ticks"] = DUMP_TICKS
    rampup = options["ddo_rampup"]
    c["lr_rampup_kimg"] = c["total_kimg"] if rampup is None else rampup * 1000
    c["ema_rampup_ratio"] = None  # upstream forgets this when it resumes
