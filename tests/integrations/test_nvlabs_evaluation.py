"""Judging by upstream's scripts: command lines, seeds, and what is read from what they print."""

from __future__ import annotations

import json
import math
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddo_integrations.demo.data import Digits
from ddo_integrations.nvlabs import evaluation
from ddo_integrations.nvlabs.evaluation import Request, Scripts, last_number, named_numbers, with_networks
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.checkouts.checkout import Checkout
from ddo_plugin.evaluation import measure
from ddo_plugin.evaluation.metrics.precision_recall import precision_recall
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

    def generate(job: evaluation.Job, *_: Any) -> None:
        judged.append(job.request.sampler)

    monkeypatch.setattr(evaluation.Job, "generate", generate)
    scripts = Scripts(("fid",), (".npz",), ("generate.py", "network"), lambda *_: {"fid": 1.0})

    def run(**changed: Any) -> None:
        files = {"network": "guide.pkl", "out": Path("e.json"), "ref": "ref.npz", "checkout": Path()}
        rest = {"seeds": "0", "num": 4, "batch": 2, "torchrun": None, "labels": None, "trust": False, **changed}
        evaluation.evaluate(scripts, {**files, "metrics": "fid", "real": None, "features": None, **rest})

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


def by_class(data: Path) -> np.ndarray:
    """Real digits, sorted by class: eight neighbours are of one or two classes."""
    digits = Digits(data)
    return digits.images[np.argsort(digits.labels, kind="stable")][::24]


@pytest.fixture
def judging(demo_data: Path, tmp_path: Path, monkeypatch) -> Any:
    """A function: options -> the JSON of an evaluation whose images are real digits and whose FID is 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "open_checkout", lambda path: request().checkout)
    pictures = by_class(demo_data).transpose(0, 2, 3, 1)
    np.savez("ref.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez("real.npz", arr_0=pictures)
    Path("a.pkl").touch()

    def generate(job: evaluation.Job, script: str, option: str, seed: int, folder: Path) -> None:
        for number, image in enumerate(pictures[8 * seed : 8 * seed + 8]):
            Image.fromarray(image.squeeze()).save(folder / f"{number}.png")

    monkeypatch.setattr(evaluation.Job, "generate", generate)

    def judge(**changed: Any) -> dict[str, Any]:
        files = {"network": "a.pkl", "out": Path("e.json"), "ref": "ref.npz", "checkout": Path(), "trust": True}
        rest = {
            "seeds": [0, 1],
            "num": 8,
            "batch": 2,
            "torchrun": None,
            "labels": None,
            "sampler": "",
            "metrics": "fid",
        }
        scripts = Scripts(
            ("fid",), (".npz",), ("generate.py", "network"), lambda *_: {"fid": 1.0}, changed.pop("gen", None)
        )
        evaluation.evaluate(scripts, {**files, **rest, "real": None, "features": None, **changed})
        return json.loads(Path("e.json").read_text())

    return judge


def test_real_images_add_precision_and_recall_to_upstreams_fid(demo_data: Path, judging) -> None:
    """They are what `precision_recall` says of the same features, which is tested elsewhere."""
    rows = Digits(demo_data).features(by_class(demo_data))
    expected = [precision_recall(rows[:8], rows), precision_recall(rows[8:16], rows)]
    features = f"digits:{demo_data}"
    found = judging(real="real.npz", features=features, gen=lambda *_: pytest.fail("`gen` writes no images"))
    assert found["score"] == 1
    assert found["metrics"].keys() == found["by_seed"][0].keys() - {"seed"} == {"fid", "precision", "recall"}
    assert [one["recall"] for one in found["by_seed"]] == [one.recall for one in expected]
    assert found["metrics"]["precision"] == np.mean([one.precision for one in expected])
    assert 0 < found["metrics"]["recall"] < 1
    assert found["real"] == {"source": "real.npz", "sha256": sha256_file(Path("real.npz"))}
    assert found["features"] == {"name": features}
    assert sum(line.startswith("ddo eval ") for line in found["commands"]) == 2
    assert {path.name for path in Path().iterdir()} == {"a.pkl", "e.json", "real.npz", "ref.npz"}


def test_without_real_images_a_line_says_why_recall_is_missing(judging, capsys) -> None:
    assert judging(gen=lambda *_: {"fid": 2.0})["metrics"] == {"fid": 2}
    assert (
        "recall is not measured, because upstream's scripts do not compute it; add --real=" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "changed"),
    {
        "--features applies to the metrics of this package only": {"features": "inception"},
        "--real applies to networks only; measure samples with `ddo eval samples": {
            "network": "samples",
            "real": "real.npz",
        },
        "none.npz: no such file": {"real": "none.npz", "features": "digits:{}"},
        "pr need images": {"real": "ref.npz", "features": "digits:{}"},
        "no plugin has the features 'mine'": {"real": "real.npz", "features": "mine"},
    }.items(),
)
def test_what_cannot_be_measured_is_refused_before_an_image_is_made(
    words: str, changed: dict[str, str], demo_data: Path, judging, monkeypatch
) -> None:
    monkeypatch.setattr(evaluation.Job, "generate", lambda *_: pytest.fail("images are made"))
    monkeypatch.setattr(measure, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    Path("samples").mkdir()
    with pytest.raises(UserError, match=re.escape(words)):
        judging(**{name: value.format(demo_data) for name, value in changed.items()})
