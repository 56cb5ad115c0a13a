"""A round of DDO as a change of the arguments that VAR's train.py was given."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ddo_integrations.var import rounds, states, tokenizer
from ddo_integrations.var.networks import Weights
from ddo_integrations.var.rounds import Round
from ddo_plugin import finetuning
from ddo_plugin.errors import UserError
from ddo_plugin.finetuning import Finetuning

# A round of the paper (Appendix C), for the arguments that were not given. Upstream's learning rate is for 256 images.
PAPER = {"bs": 1024, "tblr": 1e-6}
SAME = ("bs", "ac", "tblr", "seed", "ddo_iters", "ddo_objective", "ddo_alpha", "ddo_beta", "ddo_round")
LAYOUTS = {  # upstream's names of sides of the scales, in tokens
    "256": "1_2_3_4_5_6_8_10_13_16",
    "512": "1_2_3_4_6_9_13_18_24_32",
    "1024": "1_2_3_4_5_7_9_12_16_21_27_36_48_64",
}


def configure(args: MutableMapping[str, Any], options: Mapping[str, Any]) -> None:
    """Set the round's length and schedule; what cannot work is refused here, before anything is written."""
    _refuse_contradictions(args)
    _check_data(Path(args["data_path"]))
    run = finetuning.prepare("var", Path(args["local_out_dir_path"]), options)
    _check_network(args, run.reference.info, options)
    _check_fakes(run, options)
    args.update({name: value for name, value in PAPER.items() if not _typed(name)})
    args["ep"] = 1
    if not args["same_seed_for_all_ranks"]:
        args["same_seed_for_all_ranks"] = options["ddo_round"] or 0  # else every round begins with the same images
    settings = {name: args[name] for name in SAME} | {"ranks": int(os.environ.get("WORLD_SIZE", "1"))}
    standing = states.find(run, settings)
    tokenizer.fetch()
    rounds.start(
        Round(
            run,
            steps=options["ddo_iters"],
            accumulation=args["ac"],
            snapshot_steps=options["ddo_save"],
            state_steps=options["ddo_state"] or None,
            seed=args["seed"] or 0,
            settings=settings,
            done=standing.done if standing else 0,
            random=standing.random if standing else None,
        )
    )


def _typed(name: str) -> bool:
    """Whether the user typed this argument; upstream's parser does not say."""
    return any(word.split("=")[0] == f"--{name}" for word in sys.argv)


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
    layout = LAYOUTS.get(args["pn"], args["pn"]).replace("-", "_")
    tokens = sum(int(side) ** 2 for side in layout.split("_"))
    for flag, given, there in (
        ("depth", args["depth"], weights.depth),
        ("saln", args["saln"], weights.shared_modulation),
        ("anorm", args["anorm"], weights.normalised_attention),
    ):
        if given != there:
            raise UserError(f"--{flag}={int(given)}, but --ddo={source} has {int(there)}; set --{flag}={int(there)}")
    if tokens != weights.tokens:
        raise UserError(
            f"--pn={args['pn']} has {tokens} tokens, but --ddo={source} has {weights.tokens}; set the --pn that it was "
            "trained with"
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
