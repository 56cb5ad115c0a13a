"""A round of DDO as a change of the arguments of VAR's train.py."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddo_integrations.var import states, tokenizer
from ddo_integrations.var.names import NEEDS, parse_layout
from ddo_integrations.var.networks import Weights
from ddo_integrations.var.round import Round
from ddo_plugin import (
    RefsetFakes,
    Session,
    UserError,
    inject,
    prepare_session,
    refuse_missing_packages,
    refuse_nonfinite,
    world_size,
)

# A round of the paper (Appendix C), for the arguments that were not given. Upstream's learning rate is for 256 images.
PAPER = {"bs": 1024, "tblr": 1e-6}
CLASSES, VOCABULARY = 1000, 4096
SCHEDULES = r"cos|exp|lin(0|00|0?\.\d+)?"
SAME = (  # arguments that a resumed run must share with the run before
    *("ddo_fakes", "ddo_iters", "ddo_objective", "ddo_alpha", "ddo_beta", "ddo_round"),
    *("bs", "ac", "tblr", "sche", "wp", "twd", "tclip", "fp16", "hflip", "workers", "seed", "same_seed_for_all_ranks"),
)


def configure(args: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Set the length and schedule of the round; refuse what cannot work before anything is written."""
    refuse_missing_packages(NEEDS)
    refuse_nonfinite(args)
    _refuse_contradictions(args)
    inject.await_loader("var")
    _check_data(Path(args["data_path"]))
    session = prepare_session("var", Path(args["local_out_dir_path"]), options)
    _check_network(args, session.reference.info, options)
    _check_fakes(session, options)
    args.update({name: value for name, value in PAPER.items() if not _typed(name)})
    args["ep"] = 1
    _check_batch(args)
    _check_schedule(args)
    if not args["same_seed_for_all_ranks"]:
        # without this every round would start with the same images
        args["same_seed_for_all_ranks"] = options["ddo_round"] or 0
    session.settings = {name: args[name] for name in SAME} | {"ranks": world_size()}
    session.spec = replace(session.spec, provenance={**session.provenance, "settings": session.settings})
    tokenizer.fetch()
    standing = states.find(session)
    if standing:
        session.stop_if_paused(standing.done // args["ac"])
    session.position = Round(
        session,
        steps=options["ddo_iters"],
        accumulation=args["ac"],
        snapshot_steps=options["ddo_save"],
        state_steps=options["ddo_save" if options["ddo_pause_after"] else "ddo_state"] or None,
        seed=args["seed"] or 0,
        done=standing.done if standing else 0,
        random=standing.random if standing else None,
    )


def _check_batch(args: Mapping[str, Any]) -> None:
    """Refuse a batch of which a rank cannot drop exactly half of the labels in each forward."""
    for name in ("bs", "ac"):
        if args[name] < 1:
            raise UserError(f"--{name}={args[name]} must be at least 1")
    parts = args["ac"] * world_size()
    each = round(args["bs"] / parts)
    if each < 2 or each % 2:
        raise UserError(
            f"--bs={args['bs']}: each rank forwards {each} images at once (--ac={args['ac']}, {world_size()} ranks) "
            f"and drops the labels of exactly half; use a multiple of {2 * parts}"
        )


def _check_schedule(args: Mapping[str, Any]) -> None:
    """Refuse an unknown schedule, which upstream would look up at its first step only."""
    if not re.fullmatch(SCHEDULES, args["sche"]):
        raise UserError(
            f"--sche={args['sche']}: unknown schedule; use cos, exp, lin, lin0, lin00 or a form such as lin0.3"
        )


def _typed(name: str) -> bool:
    """Return whether the user typed this argument, perhaps shortened; upstream's parser does not tell."""
    flags = [word.split("=")[0] for word in sys.argv]
    return any(f"--{name}".startswith(flag) and len(flag) > 2 for flag in flags)


def _refuse_contradictions(args: Mapping[str, Any]) -> None:
    if args["ls"]:
        raise UserError(f"--ls={args['ls']}: DDO needs exact likelihoods, which label smoothing changes; drop --ls")
    if args["pg"]:
        raise UserError(f"--pg={args['pg']}: DDO needs all scales, and progressive training leaves some out; drop --pg")
    if _typed("ep") and args["ep"] != 1:
        raise UserError(f"--ep={args['ep']}: --ddo_iters sets the length of a round; drop --ep")
    if args["local_debug"]:
        raise UserError("the environment variable KEVIN_LOCAL is set, so upstream would train on noise; unset it")


def _check_data(folder: Path) -> None:
    for part, purpose in (("train", "to train on"), ("val", "for the validation at the end")):
        if not (folder / part).is_dir():
            raise UserError(
                f"--data_path={folder} has no folder {part} {purpose}; create it, or link it to another folder"
            )


def _check_network(args: Mapping[str, Any], weights: Weights, options: Mapping[str, Any]) -> None:
    source = options["ddo"]
    for flag, value, expected in (
        ("depth", args["depth"], weights.depth),
        ("saln", args["saln"], weights.shared_modulation),
        ("anorm", args["anorm"], weights.normalised_attention),
    ):
        if value != expected:
            raise UserError(
                f"--{flag}={int(value)}, but --ddo={source} has {int(expected)}; set --{flag}={int(expected)}"
            )
    if parse_layout(args["pn"]) != weights.sides:
        sides = "_".join(map(str, weights.sides))
        raise UserError(f"--pn={args['pn']}, but --ddo={source} has {sides}; set --pn={sides}")
    if (weights.classes, weights.vocabulary) != (CLASSES, VOCABULARY):
        raise UserError(
            f"--ddo={source} has {weights.classes} classes and {weights.vocabulary} tokens, but upstream's train.py "
            f"always builds a network with {CLASSES} classes and {VOCABULARY} tokens"
        )


def _check_fakes(session: Session, options: Mapping[str, Any]) -> None:
    """Refuse a reference set whose samples or classes do not fit the reference."""
    if session.fakes is None or options["ddo_fakes"] is None:
        return
    weights: Weights = session.reference.info
    source, shape = options["ddo_fakes"], tuple(session.fakes.shape)
    if shape != (weights.tokens,):
        raise UserError(f"--ddo_fakes={source}: samples are {shape}, but the reference's are {weights.tokens} tokens")
    if not 0 < session.fakes.classes <= weights.classes:
        raise UserError(
            f"--ddo_fakes={source} has {session.fakes.classes} classes, but the reference has {weights.classes}"
        )
    if isinstance(session.fakes, RefsetFakes) and int(session.fakes.refset.samples.max()) >= weights.vocabulary:
        raise UserError(
            f"--ddo_fakes={source}: it has tokens that the reference's vocabulary of {weights.vocabulary} lacks"
        )
