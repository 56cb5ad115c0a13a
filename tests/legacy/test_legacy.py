"""Files that version 0.1.0 wrote before its modules were moved (README.md says how) are still read.

Everything is asked of the command line, in processes of their own: where a module lies now does not matter here.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.processes import run_python

DATA = Path(__file__).with_name("data")
PLACEHOLDER = b"@FOLDER@"  # stands for the folder of the self-play run
TEXT = (".json", ".jsonl", ".log")
TRAINING = ("ddo_integrations.demo.train", "ddo_plugin.demo.train")  # where the demo's training script is, or was
BASE, REFSET = "start/network-000060.safetensors", "recipe/r01-refset-3928472a2b"
DONE, CUT = "recipe/r01-train-4374350505", "recipe/r01-train-2bbe8e66a9"  # a finished training, an interrupted one
EVALUATION = f"{DONE}/network-000030-eval-52d63c474b.json"
WINNER, SCORE = f"{DONE}/network-000030.safetensors", 1.1210818056619067
OWN_FILES = ("journal.jsonl", ".lock")  # of the process that plays, whatever it has to do


@dataclass(frozen=True)
class Run:
    """A self-play run at the place of its own that a test gave it."""

    folder: Path
    env: dict[str, str]

    def python(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return run_python(["-m", *arguments], cwd=self.folder, env=self.env)

    def ddo(self, *arguments: object) -> str:
        """The output of a command that must succeed."""
        return succeeded(self.python("ddo_plugin", *arguments))

    def play(self, *flags: str) -> str:
        """Play the rounds without the judgement at the end, which version 0.1.0 did not have."""
        unjudged = ("--set", "report.enabled=false")
        return self.ddo("selfplay", self.folder / "recipe.toml", f"--out={self.folder}", *unjudged, *flags)

    def sample(self, family: str, network: Path, out: Path, *flags: str) -> str:
        own = ["--upstream=digits", f"--family={family}", f"--data={self.folder / 'data'}"]
        return self.ddo("refset", "make", *own, f"--network={network}", f"--out={out}", *flags)

    def facts(self) -> list[dict[str, Any]]:
        return rows(self.folder / "journal.jsonl")

    def files(self) -> dict[str, tuple[int, bytes]]:
        """When each file was written, and what it holds."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in OWN_FILES]
        return {str(path.relative_to(self.folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def succeeded(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def place(stored: Path, folder: Path) -> None:
    """Copy what is stored: unpacked, and with the folder's own path where the placeholder stands."""
    for source in filter(Path.is_file, stored.rglob("*")):
        out, content = folder / source.relative_to(stored), source.read_bytes()
        if out.suffix == ".xz":
            out, content = out.with_suffix(""), lzma.decompress(content)
        if out.suffix in TEXT:
            content = content.replace(PLACEHOLDER, str(folder).encode())
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)


def pretend_versions(site: Path) -> None:
    """Outputs of self-play are named by these versions too: with others, a run would rightly begin anew.

    Python takes the first description of a package that it finds, and that of its entry points with it.
    """
    entry_points = distribution("ddo-plugin").read_text("entry_points.txt") or ""
    for name, version in json.loads((DATA / "versions.json").read_text()).items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if name == "ddo-plugin":
            (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def interrupted(tmp_path: Path) -> Run:
    """A run that was killed while it trained its second candidate."""
    pretend_versions(tmp_path / "site")
    place(DATA / "selfplay", tmp_path / "run")
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    return Run(tmp_path / "run", {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})


@pytest.fixture
def finished(interrupted: Run) -> Run:
    """The same run after it had been started again and had come to its end."""
    for left in (f"{CUT}/training-state.pt", f"{CUT}.progress"):
        (interrupted.folder / left).unlink()
    place(DATA / "selfplay-finished", interrupted.folder)
    return interrupted


# -- Networks and reference sets ------------------------------------------------------------------------------------


def test_a_network_pickle_is_described_without_running_it(interrupted: Run) -> None:
    shutil.copy(DATA / "edm/network.pkl", interrupted.folder)
    told = interrupted.ddo("inspect", "network.pkl")
    for words in ("Tiny: 16 parameters, float32", "constructed by Tiny(4)", "can be loaded without running its code"):
        assert words in told


def test_the_demos_network_is_known_for_what_it_is(interrupted: Run) -> None:
    told = interrupted.python("ddo_plugin", "inspect", BASE).stdout
    assert f"It holds {len(load_file(interrupted.folder / BASE))} tensors and no code." in told


def test_reference_sets_verify_and_tell_what_made_them(interrupted: Run) -> None:
    shutil.copytree(DATA / "images-refset", interrupted.folder / "images")
    for folder, kind, source in (
        ("images", "20 images of 1×8×8", "network-000300"),
        (REFSET, "40 samples of 21 tokens", "network-000060"),
    ):
        assert f"{kind}, " in (told := interrupted.ddo("refset", "verify", folder))
        assert "checksums match" in told
        assert f"network  {source}.safetensors, sha256 " in interrupted.ddo("refset", "info", folder)


def test_a_diffusion_network_gives_the_samples_that_it_gave(interrupted: Run) -> None:
    place(DATA / "diffusion", interrupted.folder / "diffusion")
    network, out = interrupted.folder / "diffusion/network-000300.safetensors", interrupted.folder / "images"
    interrupted.sample("diffusion", network, out, "--count=20", "--seed=3")
    before, now = (np.load(folder / "images.npy").astype(int) for folder in (DATA / "images-refset", out))
    assert np.abs(before - now).max() <= 1  # grey levels; another CPU may round otherwise
    assert (before != now).mean() < 0.02
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (DATA / "images-refset", out)]
    assert manifests[0]["reference"] == manifests[1]["reference"]
    assert manifests[0]["sampler"] == manifests[1]["sampler"]


def test_a_token_network_gives_the_samples_that_it_gave(interrupted: Run) -> None:
    out = interrupted.folder / "again"
    interrupted.sample("tokens", interrupted.folder / BASE, out, "--count=40", "--seed=1")
    before, now = (np.load(folder / "tokens.npy") for folder in (interrupted.folder / REFSET, out))
    assert (before != now).mean() < 0.02  # none at all on a CPU that rounds the same


def test_a_reference_set_that_is_there_is_not_made_again(interrupted: Run) -> None:
    before, network = interrupted.files(), interrupted.folder / BASE
    told = interrupted.sample("tokens", network, interrupted.folder / REFSET, "--count=40", "--seed=1")
    assert "nothing to do" in told
    assert interrupted.files() == before


# -- Training -------------------------------------------------------------------------------------------------------


def training_script() -> str:
    """The name of the demo's training script as a module."""

    def is_there(name: str) -> bool:
        try:
            return find_spec(name) is not None
        except ModuleNotFoundError:
            return False

    return next(filter(is_there, TRAINING))


def test_a_training_goes_on_from_its_state_to_where_it_came_before(interrupted: Run) -> None:
    out = interrupted.folder / CUT
    told_before = (out / "ddo-stats.jsonl").read_text()
    own = ["--family=tokens", "--data=data", f"--outdir={out}", "--steps=30", "--snap=30", "--dump=10", "--batch=40"]
    ddo = [f"--ddo={BASE}", f"--ddo-fakes={REFSET}", "--ddo-alpha=4", "--ddo-beta=0.3"]
    succeeded(interrupted.python(training_script(), *own, *ddo, "--seed=1"))

    assert (out / "ddo-stats.jsonl").read_text().startswith(told_before)
    told = rows(out / "ddo-stats.jsonl")
    assert [row["step"] for row in told] == list(range(30))
    for row, then in zip(told, rows(DATA / "selfplay-finished" / CUT / "ddo-stats.jsonl"), strict=True):
        assert {name: row[name] for name in then} == pytest.approx(then, rel=1e-3, abs=1e-3)  # there are more by now

    network = out / "network-000030.safetensors"
    assert all(np.isfinite(values).all() for values in load_file(network).values())
    sidecar, then = (
        json.loads((folder / CUT / f"{network.name}.ddo.json").read_text())
        for folder in (interrupted.folder, DATA / "selfplay-finished")
    )
    assert sidecar["step"] == 30
    assert sidecar["reference"]["sha256"] == then["reference"]["sha256"]
    assert sidecar["fakes"]["sha256"] == then["fakes"]["sha256"]


# -- Self-play ------------------------------------------------------------------------------------------------------


def steps(facts: list[dict[str, Any]], name: str) -> set[str]:
    """The outputs of the steps that were started, or finished."""
    return {fact["out"] for fact in facts if fact["fact"] == name}


def test_a_finished_run_is_taken_as_finished_and_nothing_of_it_is_run_again(finished: Run) -> None:
    told = finished.play("--status")
    assert told.splitlines()[-1] == "finished"
    assert f"best      1.121  ddo α=1 β=0.3  {WINNER}" in told

    before, facts = finished.files(), finished.facts()
    told = finished.play()
    assert told.splitlines()[0] == f"Best: 1.121, {finished.folder / WINNER}"
    assert finished.files() == before
    assert finished.facts()[: len(facts)] == facts
    assert not steps(finished.facts()[len(facts) :], "started")

    journal = (finished.folder / "journal.jsonl").read_bytes()  # of a run at this place, now
    finished.play()
    assert (finished.folder / "journal.jsonl").read_bytes() == journal
    assert finished.files() == before
    finished.play("--set", "report.enabled=true")
    begun = steps(finished.facts(), "started") - steps(facts, "started")
    assert len(begun) == 2 and all("-judge-" in name for name in begun)


def test_the_report_of_a_finished_run_tells_its_rounds(finished: Run) -> None:
    before = finished.files()
    finished.ddo("report", finished.folder)
    page = (finished.folder / "report.html").read_text()
    for words in ("Score by round", "sweep", "Where the winner came from", WINNER, BASE):
        assert words in page
    after = finished.files()
    assert {name: after[name] for name in before} == before


@pytest.mark.usefixtures("own_interpreters")
def test_an_interrupted_run_goes_on_without_doing_again_what_was_finished(interrupted: Run) -> None:
    told = interrupted.play("--status")
    assert "interrupted: recipe round 1 training of ddo α=4 β=0.3, 23%" in told
    assert told.splitlines()[-1] == "not running; run the same command again to resume"

    before, facts = interrupted.files(), interrupted.facts()
    interrupted.play()
    new = interrupted.facts()[len(facts) :]
    assert interrupted.facts()[: len(facts)] == facts
    assert steps(new, "started") == steps(new, "finished")
    last = steps(new, "finished") - {CUT, EVALUATION}
    assert len(steps(new, "finished")) == 3
    assert next(iter(last)).startswith(f"{CUT}/network-000030-eval-")  # named by a network, whose digits a CPU rounds
    after = interrupted.files()
    kept = [name for name in before if not name.startswith(CUT)]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}

    [winner] = [fact for fact in new if fact["fact"] == "winner"]
    assert winner["network"] == WINNER
    assert winner["score"] == pytest.approx(SCORE, rel=0.02)  # another CPU may round otherwise


# -- The files themselves -------------------------------------------------------------------------------------------


def contents() -> Iterator[tuple[Path, bytes]]:
    for path in filter(Path.is_file, DATA.rglob("*")):
        content = path.read_bytes()
        yield path, lzma.decompress(content) if path.suffix == ".xz" else content


def test_the_files_name_no_place_on_the_machine_that_made_them() -> None:
    for path, content in contents():
        assert not [place for place in (b"/tmp/", b"/root/", b"/work/", b"/home/") if place in content], path
