"""A round of DDO as a change of the configuration that EDM's train.py built."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_utils import distributed as dist

from ddo_integrations.edm import events
from ddo_integrations.nvlabs import checks
from ddo_integrations.nvlabs.checks import typed
from ddo_integrations.nvlabs.compiled import check_compiler
from ddo_integrations.nvlabs.dnnlib import EasyDict, construct_class_by_name
from ddo_plugin import (
    NetworkInfo,
    Session,
    UserError,
    ddo_values,
    describe_pickle,
    prepare_session,
    refuse_nonfinite,
    state_is_whole,
    target_settings,
)


class Defaults(NamedTuple):
    """A schedule on CIFAR-10, for the flags that were not given."""

    duration: float  # million images, as the next two
    ema: float
    rampup: float | None  # None: the whole run
    lr: float
    snap: int  # ticks
    dump: int


PAPER = Defaults(duration=1.5, ema=0.25, rampup=None, lr=1.5e-4, snap=1, dump=10)  # a round, Appendix C
# The script that the authors of Neon published; dump is ours. Upstream's EMA and ramp-up.
NEON = Defaults(duration=6, ema=0.5, rampup=10, lr=1e-4, snap=10, dump=10)

SEEDS = 1 << 31  # number of seeds that upstream draws from

# Flags that set what the reference already determines.
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
    """Replace network, loss and schedule; refuse what cannot work before anything is written."""
    if typed("transfer"):
        raise UserError(
            "--transfer and --ddo both say where to start; --ddo starts from the reference, so drop --transfer"
        )
    refuse_nonfinite(options)
    if options["ddo_compile"]:
        check_compiler()
    session = prepare_session("edm", _same_on_all_ranks(c["run_dir"]), options)
    info: NetworkInfo = session.reference.info
    _refuse_contradictions(c, options, info)
    if session.objective.trains_on != "fakes":
        checks.check_exactness(options)
    dataset = construct_class_by_name(**c["dataset_kwargs"])
    checks.check_real(options, info, dataset, info.channels or 0)
    checks.check_fakes(options, session)
    if options["ddo_pause_after"] and not options["ddo_continue"]:
        raise UserError("--ddo-pause-after needs --ddo-continue, so that the same command can resume later; add it")
    own_loss = session.objective.trains_on == "fakes"
    _set_schedule(c, options, NEON if own_loss else PAPER)
    own = checks.own_settings(options, c["network_kwargs"]["dropout"]) if own_loss else {}
    session.settings |= _settings(c, len(dataset)) | {f"--{name}": value for name, value in own.items()}
    if options["ddo_continue"] and not typed("resume"):
        _resume_from_newest(c, session)
    if c.get("resume_state_dump"):
        _check_resume(c, session)
    checks.check_batch(c["batch_size"], c.get("batch_gpu"), dist.get_world_size())
    _set_network(c, session, own)
    if c.get("resume_kimg", 0) >= c["total_kimg"]:
        session.stop_if_continued(Path(c["resume_state_dump"]))
    if c.get("resume_state_dump"):
        session.stop_if_paused(session.step_of(Path(c["resume_pkl"])))
    events.watch(session, c["batch_size"], c.get("resume_kimg", 0) * 1000, c["total_kimg"] * 1000)
    c["loss_kwargs"] = EasyDict(
        class_name="ddo_integrations.edm.loss.DDOLoss",
        noise={"sigma_data": getattr(session.reference.network, "sigma_data", 0.5)},
        record={**ddo_values(options), **session.provenance, "settings": session.settings},
    )


def _same_on_all_ranks(run_dir: str | None) -> Path:
    """Return the output folder, which upstream's train.py knows on the first rank only."""
    shared = [run_dir]
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(shared, src=0)
    assert shared[0] is not None
    return Path(shared[0])


def _refuse_contradictions(c: Mapping[str, Any], options: Mapping[str, Any], info: NetworkInfo) -> None:
    """Refuse flags that ask for another network than the reference."""
    requested = c["network_kwargs"]
    for flag, settings in ARCHITECTURE.items():
        for name in settings if typed(flag) else ():
            expected = info.init_kwargs.get(name, requested.get(name))
            if name in requested and not np.array_equal(requested[name], expected):
                raise UserError(
                    f"--{flag}={options[flag]} means {name}={requested[name]}, but the reference has {expected}; "
                    f"drop --{flag}"
                )
    if typed("precond") and requested["class_name"] != f"training.networks.{info.class_name}":
        raise UserError(f"--precond={options['precond']}: the reference is a {info.class_name}; drop --precond")
    if typed("augment") and options["augment"] and not info.augment_dim:
        raise UserError(
            f"--augment={options['augment']}: the reference was trained without augmentation; drop --augment"
        )


def _resume_from_newest(c: MutableMapping[str, Any], session: Session) -> None:
    """Resume, as --resume would, from the newest training state that is whole and has an intact snapshot.

    The seed changes, because upstream's data and noise would otherwise repeat those from the start of the round.
    """
    snapshots = {file.stem.split("-")[-1]: file for file in session.snapshots()}
    states = {file.stem.split("-")[-1]: file for file in session.outdir.glob("training-state-*.pt")}
    for kimg in sorted(snapshots.keys() & states.keys(), key=int, reverse=True):
        snapshot, state = snapshots[kimg], states[kimg]
        if state_is_whole(state) and session.is_intact(snapshot):
            c.update(resume_pkl=str(snapshot), resume_kimg=int(kimg), resume_state_dump=str(state))
            c["seed"] = (c["seed"] + int(kimg)) % SEEDS
            return


def _check_resume(c: Mapping[str, Any], session: Session) -> None:
    """Refuse a state of another run; upstream would silently load whatever parts of the network fit."""
    snapshot, state = Path(c["resume_pkl"]), Path(c["resume_state_dump"])
    found = session.options["ddo_continue"]  # by us, not named by --resume
    remedy = "use another --outdir" if found else "drop --resume, or use another --outdir"
    session.check_state(state, _record(state), remedy)
    if not snapshot.is_file() or describe_pickle(snapshot).damage:
        raise UserError(
            f"--resume={state}: its network {snapshot.name} is missing or damaged; use another training state"
        )
    if not state_is_whole(state):
        raise UserError(f"--resume={state} is damaged, perhaps by a kill during the write; use an earlier state")


def _record(state: Path) -> dict[str, Any] | None:
    """Return what training_options.json records of the run that wrote a state; None if it was no DDO run."""
    try:
        record = json.loads((state.parent / "training_options.json").read_text())["loss_kwargs"]["record"]
        return {"reference": record["reference"]["sha256"], "settings": record["settings"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _set_network(c: MutableMapping[str, Any], session: Session, own: Mapping[str, Any]) -> None:
    """Build the reference's network, with `own` settings on top."""
    c["network_kwargs"] = EasyDict(
        class_name="ddo_integrations.edm.networks.start",
        preconditioning=session.reference.info.class_name,
        **{**target_settings(session.reference), **own},
    )
    if not session.reference.info.augment_dim:
        c.pop("augment_kwargs", None)


def _settings(c: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Return the settings, besides our options, that a resumed run must share; the seed changes on purpose."""
    return {
        "--lr": c["optimizer_kwargs"]["lr"],
        "--batch": c["batch_size"],
        "--ema": c["ema_halflife_kimg"] / 1000,
        "images in --data": images,
    }


def _set_schedule(c: MutableMapping[str, Any], options: Mapping[str, Any], defaults: Defaults) -> None:
    """Set the paper's schedule where upstream's own flags were not given."""
    if not typed("duration"):
        c["total_kimg"] = int(defaults.duration * 1000)
    if not typed("lr"):
        c["optimizer_kwargs"]["lr"] = defaults.lr
    if not typed("ema"):
        c["ema_halflife_kimg"] = int(defaults.ema * 1000)
    if not typed("snap"):
        c["snapshot_ticks"] = defaults.snap
    if options["ddo_pause_after"]:
        c["state_dump_ticks"] = c["snapshot_ticks"]  # a paused run resumes from any snapshot
    elif not typed("dump"):
        c["state_dump_ticks"] = defaults.dump
    rampup = defaults.rampup if options["ddo_rampup"] is None else options["ddo_rampup"]
    c["lr_rampup_kimg"] = c["total_kimg"] if rampup is None else rampup * 1000
    c["ema_rampup_ratio"] = None  # upstream forgets its value when it resumes
