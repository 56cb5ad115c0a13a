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
    ddo_values,
    inject,
    is_first,
    prepare_session,
    refuse_missing_packages,
    refuse_nonfinite,
    world_size,
)

# A round of the paper (Appendix C; wpe is from the authors' script), for the arguments that were not given. Upstream's
# learning rate is for 256 images.
PAPER = {"bs": 1024, "tblr": 1e-6, "wpe": 0.1}
# Neon's on ImageNet-256, from the script that its authors published: the learning rate rises to 1e-5.
NEON = {"bs": 768, "tblr": 1e-5 * 256 / 768, "wp": 1.0, "twd": 0.0}
UPSTREAMS_WPE = 0.01
CLASSES, VOCABULARY = 1000, 4096  # upstream pretrains every network with so many
SCHEDULES = r"cos|exp|lin(0|00|0?\.\d+)?"
SAME = (  # arguments that a resumed run must share with the run before
    *("ddo_fakes", "ddo_fakes_from", "ddo_fakes_cfg", "ddo_fakes_precision"),
    *("ddo_iters", "ddo_schedule", "ddo_objective", "ddo_alpha", "ddo_beta", "ddo_round"),
    *("bs", "ac", "tblr", "sche", "wp", "wpe", "twd", "tclip", "fp16", "hflip", "workers", "seed"),
    "same_seed_for_all_ranks",
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
    _check_classes(args, session.reference.info, options)
    _check_fakes(session, options)
    trains_on = session.objective.trains_on
    if trains_on != "real":
        args["ddo_fakes_from"] = _fakes_from(session, options)
        args["ddo_fakes_cfg"] = _guidance(session, options)
    defaults = NEON if trains_on == "fakes" else PAPER
    args.update({name: value for name, value in defaults.items() if not _typed(name, args)})
    args["ep"] = 1
    _check_batch(args)
    _check_schedule(args)
    if not args["same_seed_for_all_ranks"]:
        # without this every round would start with the same images
        args["same_seed_for_all_ranks"] = options["ddo_round"] or 0
    session.settings = {name: args[name] for name in SAME} | {"ranks": world_size()}
    session.spec = replace(
        session.spec, options=ddo_values(args), provenance={**session.provenance, "settings": session.settings}
    )
    tokenizer.fetch()
    # Earlier versions left wpe at upstream's default and did not record it. A typed value cannot be checked.
    standing = states.find(session, unrecorded={} if _typed("wpe", args) else {"wpe": UPSTREAMS_WPE})
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


def _typed(name: str, args: Mapping[str, Any]) -> bool:
    """Return whether the user typed this argument, perhaps shortened; upstream's parser does not tell.

    The full name of another argument is not a short form: --wp is not --wpe.
    """
    flags = {word.split("=")[0] for word in sys.argv} - {f"--{other}" for other in args if other != name}
    return any(f"--{name}".startswith(flag) and len(flag) > 2 for flag in flags)


def _refuse_contradictions(args: Mapping[str, Any]) -> None:
    if args["ls"]:
        raise UserError(f"--ls={args['ls']}: DDO needs exact likelihoods, which label smoothing changes; drop --ls")
    if args["pg"]:
        raise UserError(f"--pg={args['pg']}: DDO needs all scales, and progressive training leaves some out; drop --pg")
    if _typed("ep", args) and args["ep"] != 1:
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
    if weights.vocabulary != VOCABULARY:
        raise UserError(
            f"--ddo={source} has {weights.vocabulary} tokens, but upstream's train.py always builds a network with "
            f"{VOCABULARY}"
        )


def _check_classes(args: Mapping[str, Any], weights: Weights, options: Mapping[str, Any]) -> None:
    """Refuse data of other classes than the reference's; upstream numbers the folders as it finds them."""
    folder, source = Path(args["data_path"]) / "train", options["ddo"]
    found, validated = (sum(path.is_dir() for path in of.iterdir()) for of in (folder, folder.with_name("val")))
    if validated > weights.classes:  # upstream would fail in the validation at the end of the round
        raise UserError(
            f"{folder.with_name('val')} has {validated} classes (folders), but --ddo={source} has {weights.classes}; "
            "keep only the network's classes"
        )
    numbers = f"{folder} has {found} classes (folders), but --ddo={source} has {weights.classes}"
    if found == weights.classes:
        return
    if found > weights.classes or weights.classes != CLASSES:
        raise UserError(f"{numbers}; use the data that the network was trained on, or another network")
    if is_first():  # upstream's train.py gives every network 1000 classes, also one that it trains on fewer
        print(f"ddo: {numbers}; this is right only if the network was trained on these {found}", file=sys.stderr)


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
    if not isinstance(session.fakes, RefsetFakes):
        return
    refset = session.fakes.refset
    if int(refset.samples.max()) >= weights.vocabulary:
        raise UserError(
            f"--ddo_fakes={source}: it has tokens that the reference's vocabulary of {weights.vocabulary} lacks"
        )
    if refset.logp is not None and session.fakes.description["reference_sha256"] != session.reference.sha256:
        raise UserError(
            f"--ddo_fakes={source} holds log-probabilities under another network than --ddo={options['ddo']}; "
            "sample this reference with `ddo refset make`"
        )
    if options["ddo_fakes_precision"] != "fp32":
        raise UserError(
            f"--ddo_fakes_precision={options['ddo_fakes_precision']} has no effect on the fakes in "
            f"--ddo_fakes={source}; drop it"
        )


def _fakes_from(session: Session, options: Mapping[str, Any]) -> str:
    """Return whether the fakes are tokens as drawn, or of decoded images; a reference set was made in either way."""
    asked = options["ddo_fakes_from"]
    if session.fakes is None:
        return asked or "pixels"
    if not isinstance(session.fakes, RefsetFakes):
        _refuse_without_effect(options)
        return "tokens"
    made = "pixels" if session.fakes.refset.manifest["sampler"].get("through_pixels") else "tokens"
    if asked not in (None, made):
        remedy = "with --through-pixels" if made == "tokens" else "without --through-pixels"
        raise UserError(
            f"--ddo_fakes_from={asked}, but --ddo_fakes={options['ddo_fakes']} holds fakes from {made}; make another "
            f"set {remedy}, or drop --ddo_fakes_from"
        )
    if asked is None and made == "tokens" and is_first():
        print(
            f"ddo: --ddo_fakes={options['ddo_fakes']}: the fakes are tokens as they were drawn; to encode them like "
            "real images, make the set with --through-pixels",
            file=sys.stderr,
        )
    return made


def _guidance(session: Session, options: Mapping[str, Any]) -> float:
    """Return the guidance scale of the fakes: as asked, or as the reference set was made."""
    asked: float = options["ddo_fakes_cfg"]
    if not isinstance(session.fakes, RefsetFakes):
        return asked
    made_with: float = session.fakes.refset.manifest["sampler"].get("cfg", 0.0)
    if asked not in (0, made_with):
        raise UserError(
            f"--ddo_fakes_cfg={asked:g}, but --ddo_fakes={options['ddo_fakes']} was sampled with {made_with:g}; make "
            f"another set with --cfg={asked:g}, or drop --ddo_fakes_cfg"
        )
    return made_with


def _refuse_without_effect(options: Mapping[str, Any]) -> None:
    """Refuse options of sampling during training when a plugin provides the fakes."""
    for name, default in (("ddo_fakes_from", None), ("ddo_fakes_cfg", 0), ("ddo_fakes_precision", "fp32")):
        if options[name] != default:
            raise UserError(f"--{name}={options[name]} has no effect on fakes that a plugin provides; drop it")
