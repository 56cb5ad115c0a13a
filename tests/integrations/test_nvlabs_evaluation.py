"""Judging by upstream's scripts: command lines, seeds, and what is read from what they print."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddo_integrations.nvlabs import evaluation
from ddo_integrations.nvlabs.evaluation import Request, Scripts, last_number, named_numbers, with_networks
from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.checkout import Checkout
from ddo_plugin.evaluation.scores import evaluation_command
from ddo_plugin.hooks.types import EvaluationStep, Upstream


def request(**changed: Any) -> Request:
    plain = {"what": Path("a.pkl"), "out": Path("e.json"), "ref": "r.npz", "num": 50_000, "metrics": ("fid",)}
    upstream = Checkout(Path("repo"), Upstream("edm", "EDM", "train.py"))
    return Request(**{**plain, "checkout": upstream, "batch": 64, "torchrun": None, "sampler": (), **changed})


def test_settings_are_options_and_those_that_are_off_are_left_out() -> None:
    settings = {"checkout": "edm", "trust": True, "torchrun": None, "num": 10, "cfg": 0.0}
    step = EvaluationStep("edm", Path("a.pkl"), Path("e.json"), (0, 1), settings)
    argv = evaluation_command("some.module", step).argv
    assert argv[:3] == [sys.executable, "-m", "some.module"]
    assert argv[3:] == [
        "--network=a.pkl",
        "--out=e.json",
        "--seeds=0,1",
        "--checkout=edm",
        "--trust",
        "--num=10",
        "--cfg=0.0",
    ]


def test_seeds_are_blocks_that_do_not_overlap() -> None:
    first, second = request().image_seeds(0), request().image_seeds(1)
    assert (first[0], first[-1], second[0], second[-1]) == (0, 49_999, 50_000, 99_999)


@pytest.mark.parametrize(("text", "value"), [("1.79", 1.79), ("1e-05", 1e-5), ("-0.002", -0.002), ("12", 12)])
def test_the_last_line_that_is_a_number_counts(text: str, value: float) -> None:
    assert last_number(f"Loading 3 images\n7\nCalculating FID...\n{text}\n", "fid") == value


def test_a_distance_that_is_not_a_number_is_told_as_such() -> None:
    assert math.isnan(last_number("nan\n", "fid"))
    assert math.isnan(named_numbers("fid = nan\n", ["fid"])["fid"])


def test_numbers_are_found_by_name() -> None:
    printed = "Calculating fid...\nfid = 2.5\nfd_dinov2 = 60\n"
    assert named_numbers(printed, ["fd_dinov2", "fid"]) == {"fd_dinov2": 60, "fid": 2.5}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--gnet=a.pkl", "--guidance=1.5"], ["--gnet=<a.pkl>", "--guidance=1.5"]),
        (
            ["--guidance", "1.5", "--gnet", "https://host/a.pkl?b=c"],
            ["--guidance", "1.5", "--gnet", "<https://host/a.pkl?b=c>"],
        ),
        (
            ["--gnet=https://host/a.pkl?b=c", "--gnet", "b.pkl"],
            ["--gnet=<https://host/a.pkl?b=c>", "--gnet", "<b.pkl>"],
        ),
        (["--net=a.pkl", "--network", "b.pkl"], ["--net=<a.pkl>", "--network", "<b.pkl>"]),
        (["--gnetwork=a.pkl", "--steps=18", "--gnet"], ["--gnetwork=a.pkl", "--steps=18", "--gnet"]),
        ([], []),
    ],
)
def test_each_network_that_a_samplers_arguments_name_is_replaced(arguments: list[str], changed: list[str]) -> None:
    assert with_networks(arguments, lambda file: f"<{file}>") == tuple(changed)


class Foreign:
    """Not a network of any checkout."""

    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("form", ["--gnet={}", "--gnet {}"])
def test_a_guide_that_is_a_program_is_not_handed_to_the_scripts(form: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkout = request().checkout
    monkeypatch.setattr(evaluation, "open_checkout", lambda path: checkout)
    Path("samples").mkdir()
    Path("guide.pkl").write_bytes(pickle.dumps({"ema": Foreign()}))
    np.savez("ref.npz", mu=np.zeros(2048), sigma=np.eye(2048))

    def judge(job: Any, *_: Any) -> dict[str, float]:
        judged.append(job.request.sampler)
        return {"fid": 1.0}

    def run(**changed: Any) -> None:
        files = {"network": "guide.pkl", "out": Path("e.json"), "ref": "ref.npz", "checkout": Path()}
        rest = {"seeds": "0", "num": 4, "batch": 2, "torchrun": None, "labels": None, "trust": False, **changed}
        evaluation.evaluate(Scripts(("fid",), (".npz",), judge, judge), {**files, "metrics": "fid", **rest})

    judged: list[tuple[str, ...]] = []
    with pytest.raises(UserError, match=r"^guide\.pkl: refused, because loading it may run code.*--trust$"):
        run(sampler=form.format("guide.pkl"))
    assert judged == []
    run(sampler=form.format("guide.pkl"), trust=True)
    assert judged == [tuple(form.format("guide.pkl").split())]


@pytest.mark.parametrize("printed", ["", "fid: 3\n", "FID was 3\n", "-\n"])
def test_a_script_that_prints_no_number_is_told(printed: str) -> None:
    with pytest.raises(UserError, match="printed no fid"):
        last_number(printed, "fid")
    with pytest.raises(UserError, match="printed no fid"):
        named_numbers(printed, ["fid"])
