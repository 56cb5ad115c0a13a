"""`ddo eval` in the features of the demo's classifier, which a plugin brings. With --checkout: tests/upstream."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from ddo_plugin import Integration, Upstream
from ddo_plugin.base.files import sha256_file
from ddo_plugin.checkouts import checkout
from ddo_plugin.cli import main
from ddo_plugin.hooks import plugins

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def digits(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data with its classifier, and two halves of it as .npz files."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "data").symlink_to(demo_data)
    images = np.load(folder / "data/images.npy").transpose(0, 2, 3, 1)
    np.savez(folder / "real.npz", arr_0=images[::2])
    np.savez(folder / "samples.npz", arr_0=images[1::2])
    np.savez(folder / "noise.npz", arr_0=np.random.default_rng(0).permuted(images[1::2], axis=0))
    return folder


def evaluate(digits: Path, name: str, *options: str) -> Result:
    features = f"--features=digits:{digits / 'data'}"
    return CliRunner().invoke(main, ["eval", str(digits / name), f"--ref={digits / 'real.npz'}", features, *options])


def found(digits: Path, name: str, out: Path) -> dict:
    result = evaluate(digits, name, "--metrics=fid,is,pr,kid", f"--out={out}")
    assert result.exit_code == 0, result.output
    return json.loads(out.read_text())


def test_real_digits_are_judged_better_than_shuffled_pixels_by_every_metric(digits: Path, tmp_path: Path) -> None:
    good, bad = found(digits, "samples.npz", tmp_path / "a.json"), found(digits, "noise.npz", tmp_path / "b.json")
    for name, sign in {"fid": -1, "kid": -1, "is": 1, "precision": 1, "recall": 1}.items():
        assert sign * good["metrics"][name] > sign * bad["metrics"][name], name
    assert 7 < good["metrics"]["is"] < 10
    assert good["metrics"]["precision"] > 0.8


def test_the_record_says_what_was_measured_on_what_by_what(digits: Path, tmp_path: Path) -> None:
    record = found(digits, "samples.npz", tmp_path / "new/eval.json")
    assert record["score"] == record["metrics"]["fid"]
    assert record["count"] == 898
    samples, real = digits / "samples.npz", digits / "real.npz"
    assert record["samples"] == {"path": str(samples), "count": 898, "sha256": sha256_file(samples)}
    assert record["reference"] == {"source": str(real), "sha256": sha256_file(real)}
    assert record["features"]["name"].startswith("digits:")
    assert {"ddo-plugin", "torch", "numpy", "python"} <= record["versions"].keys()


def test_the_numbers_are_printed_and_no_file_is_needed(digits: Path) -> None:
    result = evaluate(digits, "samples.npz", "--metrics=fid,is")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["fid", "is", "is_std"]


def test_recall_is_measured_by_default(digits: Path, tmp_path: Path) -> None:
    result = evaluate(digits, "samples.npz", f"--out={tmp_path / 'e.json'}")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["fid", "precision", "recall"]
    assert json.loads((tmp_path / "e.json").read_text())["metrics"]["recall"] > 0.8


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_saved_statistics_take_the_place_of_the_images(suffix: str, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / f"real{suffix}"
    arguments = [f"--features=digits:{digits / 'data'}", f"--save-statistics={path}"]
    saved = CliRunner().invoke(main, ["eval", str(digits / "real.npz"), *arguments])
    assert saved.output == f"{path}: statistics of 899 images\n"
    found = evaluate(digits, "samples.npz", f"--ref={path}")
    assert found.stdout == evaluate(digits, "samples.npz", "--metrics=fid").stdout
    assert f"recall is not measured, because --ref={path} holds no images" in found.stderr
    again = CliRunner().invoke(main, ["eval", str(digits / "real.npz"), *arguments])
    assert again.exit_code == 2
    assert str(path) in again.output


STATISTICS_REFUSALS = {
    "--ref does not apply to --save-statistics": ["--ref=real.npz", "--save-statistics=s.npz"],
    "--out does not apply to --save-statistics": ["--out=e.json", "--save-statistics=s.npz"],
    "--checkout does not apply to --save-statistics": ["--checkout=tests", "--save-statistics=s.npz"],
    "--num needs --checkout": ["--num=10", "--save-statistics=s.npz"],
    "s.json: the name must end with .npz (as EDM's) or .pkl (as EDM2's)": ["--save-statistics=s.json"],
    "--metrics=pr: statistics are for fid and sfid only": ["--metrics=fid,pr", "--save-statistics=s.npz"],
    "keep no positions, which sfid needs": ["--metrics=fid,sfid", "--save-statistics=s.npz"],
    "--save-statistics=/proc/s.npz cannot be written": ["--save-statistics=/proc/s.npz"],
}


@pytest.mark.parametrize("words", STATISTICS_REFUSALS)
def test_statistics_that_cannot_be_written_are_one_line(words: str, digits: Path) -> None:
    arguments = [str(digits / "real.npz"), f"--features=digits:{digits / 'data'}", *STATISTICS_REFUSALS[words]]
    result = CliRunner().invoke(main, ["eval", *arguments])
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_disk_that_fills_up_meanwhile_costs_the_file_alone(digits: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ddo_plugin.base.result_file.check_place", lambda out: None)
    (tmp_path / "file").touch()
    result = evaluate(digits, "samples.npz", f"--out={tmp_path / 'file/e.json'}")
    assert result.exit_code == 2
    assert result.stdout.startswith("fid  ")
    assert "e.json cannot be written" in result.stderr


REFUSALS = {
    "unknown metric 'fd'": ["samples.npz", "--metrics=fd"],
    "no such file or folder": ["none.npz"],
    "no plugin has the features 'mine'": ["samples.npz", "--features=mine"],
    "--num needs --checkout": ["samples.npz", "--num=10"],
    "--trust needs --checkout": ["samples.npz", "--trust"],
    "go to upstream's sampler, which needs --checkout": ["samples.npz", "--", "--steps=3"],
    "--seed applies to the metrics of this package only": ["samples.npz", "--checkout=.", "--seed=1"],
    "is a network, not samples; add --checkout=REPO": ["network.pkl"],
    "/proc/e.json cannot be written": ["samples.npz", "--out=/proc/e.json"],
    "--out=pyproject.toml/e.json cannot be written (Not a directory)": ["samples.npz", "--out=pyproject.toml/e.json"],
    "is not a checkout of a supported upstream": ["samples.npz", "--checkout=tests", "--features=", "--out=x.json"],
}


@pytest.mark.parametrize("words", REFUSALS)
def test_what_cannot_work_is_one_line(words: str, digits: Path) -> None:
    result = evaluate(digits, *REFUSALS[words])
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_a_reference_is_needed_where_something_is_compared(digits: Path) -> None:
    for features in f"--features=digits:{digits / 'data'}", "--features=dinov2":  # also if the weights are missing
        result = CliRunner().invoke(main, ["eval", str(digits / "samples.npz"), features])
        assert result.exit_code == 2
        assert "pass them with --ref" in result.output


def test_a_curve_is_made_of_evaluations(digits: Path, tmp_path: Path) -> None:
    """End to end: scale 0 takes real digits, scale 1 shuffled pixels."""
    pytest.importorskip("matplotlib")
    names = f"{digits}/$(test {{scale}} = 0 && echo samples || echo noise).npz"
    rest = f"--ref={digits / 'real.npz'} --features=digits:{digits / 'data'} --metrics=fid,is --out={{out}}"
    script = f"{sys.executable} -m ddo_plugin eval {names} {rest}"
    command = ["curve", "--scales=0,1", f"--out={tmp_path / 'c'}", "--", "sh", "-c", script]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    points = json.loads((tmp_path / "c/curve.json").read_text())["points"]
    assert points[0]["fid"] < points[1]["fid"]
    assert points[0]["inception_score"] > points[1]["inception_score"]


def test_an_evaluation_without_the_option_sampler_takes_no_arguments_for_it(monkeypatch) -> None:
    class Fourth(Integration):
        upstream = Upstream("fourth", "a fourth upstream", "train.py")

        def evaluation_options(self) -> list[click.Parameter]:
            return [click.Option(["--network"])]

    monkeypatch.setattr(checkout, "open_checkout", lambda folder: checkout.Checkout(folder, Fourth.upstream))
    plugins.manager().register(Fourth(), "fourth")
    try:
        result = CliRunner().invoke(main, ["eval", "x", "--checkout=.", "--ref=x", "--out=x", "--", "--steps=3"])
    finally:
        plugins.manager().unregister(name="fourth")
    assert result.exit_code == 2
    assert "--steps=3: the evaluation of a fourth upstream takes no arguments after `--`" in result.output
