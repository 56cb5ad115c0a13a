"""A stand-in upstream for `ddo selfplay` as a process: a plugin with an entry point, its steps tiny real commands.

A network is a file with a number, its score. A training divides it by α (and writes a second snapshot that is worse),
so that every output is determined by what it is made from. Every step notes in `notes` that it was finished.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.processes import FORKS_VARIABLE, build_once, run_python

PLUGIN = """
import os, sys
from pathlib import Path
import click
from ddo_plugin import hookimpl
from ddo_plugin import Command, Upstream

STEP = str(Path(__file__).with_name("standin_step.py"))

def command(what, *arguments):
    return Command([sys.executable, "-S", STEP, what, *map(str, arguments)])

@hookimpl
def ddo_upstreams():
    return [Upstream("standin", "the stand-in", str(Path(STEP).with_name("standin_train.py")), states=("state*",))]

@hookimpl
def ddo_options(upstream):
    return [click.Option(["--ddo-mode"])] if upstream == "standin" else []

@hookimpl
def ddo_refset_command(step):
    return command("refset", step.network, step.out) if step.upstream == "standin" else None

@hookimpl
def ddo_round_command(step):
    setting = (step.alpha, step.beta, *(step.settings.get(name, "") for name in ("ddo-mode", "ddo-pause-after")))
    return command("train", step.reference, step.out, *setting) if step.upstream == "standin" else None

@hookimpl
def ddo_merge(upstream, a, b, outs):
    if upstream == "standin":
        of_a, of_b = (float(path.read_text().split()[0]) for path in (a, b))
        for out, w in outs.items():
            out.write_text(str(of_a + w * (of_b - of_a)))
        return "merged"

@hookimpl
def ddo_evaluation_command(step):
    return command("evaluate", step.network, step.out, *step.seeds) if step.upstream == "standin" else None
"""

TRAIN = '''
import click

@click.option("--speed", type=int)
def main(speed):
    """What `ddo validate` reads the options of a training from."""
'''

STEP = """
import hashlib, json, os, pathlib, sys, time

what, source, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])

def write(path, text):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)

def note(line):
    with open(os.environ["STANDIN_NOTES"], "a") as file:
        file.write(line + "\\n")

def evaluation(number, seeds):
    score = number + (sum(map(float, seeds)) - 1) / 1000  # other seeds than 1 give another score
    return {"score": score, "spread": 0.1, "metrics": {"fid": score, "recall": 0.5}, "seeds": seeds}

number = float(source.read_text().split()[0])
time.sleep(float(os.environ.get("STANDIN_SECONDS", "0.01")))
if what == "refset":
    out.mkdir(exist_ok=True)
    write(out / "samples", f"{number}")
elif what == "train":
    alpha, beta, mode, pause = float(sys.argv[4]), float(sys.argv[5]), sys.argv[6], sys.argv[7]
    bad = alpha == 3.0
    if mode == "fails" and bad:
        sys.exit("no such device")
    if mode == "collapses" and bad:
        print("collapsed at step 7")
        sys.exit(3)
    if mode == "fails-once" and bad and not out.with_name(out.name + ".tried").exists():
        out.with_name(out.name + ".tried").touch()
        sys.exit("a passing fault")
    if mode == "hangs":
        note("hangs")
        time.sleep(60)
    out.mkdir(exist_ok=True)
    size = int(os.environ.get("STANDIN_BYTES", "10"))
    for step, factor in ((1, 1.0), (2, 1.5))[: int(pause or 2)]:
        path = out / f"network-{step}.net"
        text = f"{number * factor / alpha + beta} " + "x" * size
        write(path, text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        write(path.with_name(path.name + ".ddo.json"), json.dumps({"step": step, "sha256": sha256}))
    write(out / "state", "where training resumes")
    out = out.with_name(f"{out.name}@{pause}") if pause else out
else:
    write(out, json.dumps(evaluation(number, sys.argv[4:])))
note(f"{what} {out.name}")
"""

RECIPE = """
title = "a stand-in"
upstream = "standin"
start = "base.net"
rounds = 2

[refset]
count = 8

[training]

[sweep]
alpha = [2.0, 3.0]
beta = [0.1, 0.2]

[evaluation]
seeds = [1]

[report]
enabled = false

[resources]
slots = 2
"""


@dataclass
class World:
    """A folder with a recipe, the stand-in's plugin, and `ddo` as a process."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "selfplay-recipe"

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ddo_plugin", "selfplay", "recipe.toml", *arguments]

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*arguments),
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **env)
        printed, complained = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, printed, complained)

    def ddo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "ddo_plugin", *arguments]
        return subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)

    def notes(self) -> list[str]:
        file = Path(self.env["STANDIN_NOTES"])
        return file.read_text().splitlines() if file.exists() else []

    def facts(self, *names: str) -> list[dict[str, Any]]:
        from ddo_plugin.jobs.journal import FILE_NAME, read

        return [fact for fact in read(self.out / FILE_NAME) if not names or fact["fact"] in names]


def upstreams() -> Path:
    """Return the folder with the checkouts of the upstreams, as far as this machine has them."""
    return Path(os.environ.get("DDO_UPSTREAMS") or Path.home() / ".cache" / "ddo-plugin" / "upstreams")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function: name, what fills a folder -> the folder, which all workers of this test run share unchanged."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    root.mkdir(exist_ok=True)
    return lambda name, build: build_once(root / name, build)


@pytest.fixture
def own_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each command of the test start a Python of its own, which imports torch itself."""
    monkeypatch.setenv(FORKS_VARIABLE, "0")


@pytest.fixture(scope="session")
def demo_data(shared) -> Path:
    """The demo's data with its classifier."""
    prepare = ["-m", "ddo_integrations.demo.prepare"]
    return shared("demo-data", lambda out: run_python([*prepare, f"--out={out / 'data'}"]).check_returncode()) / "data"


def stand_in_world(folder: Path, recipe: str = RECIPE) -> World:
    """Fill a folder with the stand-in's plugin, its base network and a recipe."""
    site = folder / "site"
    info = site / "standin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "standin_plugin.py").write_text(PLUGIN)
    (site / "standin_step.py").write_text(STEP)
    (site / "standin_train.py").write_text(TRAIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: standin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ddo_plugin]\nstandin = standin_plugin\n")
    (folder / "recipe.toml").write_text(recipe)
    (folder / "base.net").write_text("100 base")
    env = {**os.environ, "PYTHONPATH": str(site), "STANDIN_NOTES": str(folder / "notes")}
    return World(folder, env)


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return stand_in_world


@pytest.fixture
def world(tmp_path: Path, make_world: Callable[[Path], World]) -> World:
    return make_world(tmp_path)
