"""A round of DDO as a change of the arguments that VAR's train.py was given."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddo_integrations.nvlabs import checks
from ddo_integrations.var import names as layouts
from ddo_integrations.var import round as rounds
from ddo_integrations.var import states, tokenizer
from ddo_integrations.var.names import NEEDS
from ddo_integrations.var.networks import Weights
from ddo_integrations.var.round import Round
from ddo_plugin import Finetuning, RefsetFakes, UserError, inject
from ddo_plugin.checkouts import required_packages
from ddo_plugin.finetuning import session as finetuning

# A round of the paper (Appendix C), for the arguments that were not given. Upstream's learning rate is for 256 images.
PAPER = {"bs": 1024, "tblr": 1e-6}
CLASSES, VOCABULARY = 1000, 4096
SCHEDULES = r"cos|exp|lin(0|00|0?\.\d+)?"
SAME = (  # what a run that goes on must have in common with the one before
    *("ddo_fakes", "ddo_iters", "ddo_objective", "ddo_alpha", "ddo_beta", "ddo_round"),
    *("bs", "ac", "tblr", "sche", "wp", "twd", "tclip", "fp16", "hflip", "workers", "seed", "same_seed_for_all_ranks"),
)


def configure(args: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Set the round's length and schedule; what cannot work is refused here, before anything is written."""
    required_packages.refuse_missing(NEEDS)
    checks.check_numbers(args)
    _refuse_contradictions(args)
    inject.await_loader("var")
    _check_data(Path(args["data_path"]))
    run = finetuning.prepare("var", Path(args["local_out_dir_path"]), options)
    _check_network(args, run.reference.info, options)
    _check_fakes(run, options)
    args.update({name: value for name, value in PAPER.items() if not _typed(name)})
    args["ep"] = 1
    _check_batch(args)
    _check_schedule(args)
    if not args["same_seed_for_all_ranks"]:
        args["same_seed_for_all_ranks"] = options["ddo_round"] or 0  # else every round begins with the same images
    settings = {name: args[name] for name in SAME} | {"ranks": _ranks()}
    run.run = replace(run.run, provenance={**run.run.provenance, "settings": settings})
    tokenizer.fetch()
    standing = states.find(run, settings)
    if standing:
        run.leave_if_paused(standing.done // args["ac"])
    rounds.start(
        Round(
            run,
            steps=options["ddo_iters"],
            accumulation=args["ac"],
            snapshot_steps=options["ddo_save"],
            state_steps=options["ddo_save" if options["ddo_pause_after"] else "ddo_state"] or None,
            seed=args["seed"] or 0,
            settings=settings,
            done=standing.done if standing else 0,
            random=standing.random if standing else None,
        )
    )


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _check_batch(args: Mapping[str, Any]) -> None:
    """Half of the labels of what a rank forwards at once are dropped."""
    for name in ("bs", "ac"):
        if args[name] < 1:
            raise UserError(f"--{name}={args[name]} is to be 1 or more")
    parts = args["ac"] * _ranks()
    each = round(args["bs"] / parts)
    if each < 2 or each % 2:
        raise UserError(
            f"--bs={args['bs']}: a rank forwards {each} images at once (--ac={args['ac']}, {_ranks()} ranks), of which "
            f"exactly half shall lose their labels; use a multiple of {2 * parts}"
        )


def _check_schedule(args: Mapping[str, Any]) -> None:
    """Upstream looks it up at the first step."""
    if not re.fullmatch(SCHEDULES, args["sche"]):
        raise UserError(f"--sche={args['sche']}: upstream knows cos, exp, lin, lin0, lin00 and lin0.3 and its like")


def _typed(name: str) -> bool:
    """Whether the user typed this argument, perhaps shortened; upstream's parser does not say."""
    flags = [word.split("=")[0] for word in sys.argv]
    return any(f"--{name}".startswith(flag) and len(flag) > 2 for flag in flags)


def _refuse_contradictions(args: Mapping[str, Any]) -> None:
    if args["ls"]:
        raise UserError(f"--ls={args['ls']}: DDO compares likelihoods, which smoothed labels are not; drop --ls")
    if args["pg"]:
        raise UserError(f"--pg={args['pg']}: progressive training leaves out scales of the reference; drop --pg")
    if _typed("ep") and args["ep"] != 1:
        raise UserError(f"--ep={args['ep']}: the length of a round is --ddo_iters; drop --ep")
    if args["local_debug"]:
        raise UserError("KEVIN_LOCAL is set, so upstream would train on noise; unset it")


def _check_data(folder: Path) -> None:
    for part, meant in (("train", "to train on"), ("val", "which upstream validates on when it ends")):
        if not (folder / part).is_dir():
            raise UserError(f"--data_path={folder} has no folder {part}, {meant}; make one, or a link to another")


def _check_network(args: Mapping[str, Any], weights: Weights, options: Mapping[str, Any]) -> None:
    source = options["ddo"]
    for flag, given, there in (
        ("depth", args["depth"], weights.depth),
        ("saln", args["saln"], weights.shared_modulation),
        ("anorm", args["anorm"], weights.normalised_attention),
    ):
        if given != there:
            raise UserError(f"--{flag}={int(given)}, but --ddo={source} has {int(there)}; set --{flag}={int(there)}")
    if layouts.parse(args["pn"]) != weights.sides:
        sides = "_".join(map(str, weights.sides))
        raise UserError(f"--pn={args['pn']}, but --ddo={source} has {sides}; set --pn={sides}")
    if (weights.classes, weights.vocabulary) != (CLASSES, VOCABULARY):
        raise UserError(
            f"--ddo={source} has {weights.classes} classes and {weights.vocabulary} kinds of tokens; upstream's "
            f"train.py builds {CLASSES} and {VOCABULARY}, whatever its flags"
        )


def _check_fakes(run: Finetuning, options: Mapping[str, Any]) -> None:
    """A reference set must be of pyramids and classes that the reference has."""
    if run.fakes is None or options["ddo_fakes"] is None:
        return
    weights: Weights = run.reference.info
    source, shape = options["ddo_fakes"], tuple(run.fakes.shape)
    if shape != (weights.tokens,):
        raise UserError(f"--ddo_fakes={source}: samples are {shape}, but the reference's are {weights.tokens} tokens")
    if not 0 < run.fakes.classes <= weights.classes:
        raise UserError(
            f"--ddo_fakes={source} has {run.fakes.classes} classes, but the reference has {weights.classes}"
        )
    if isinstance(run.fakes, RefsetFakes) and int(run.fakes.refset.samples.max()) >= weights.vocabulary:
        raise UserError(f"--ddo_fakes={source}: has tokens beyond the reference's {weights.vocabulary} kinds")
