"""Files that hide a stranger's code beside an honest network, through every command that hands them to upstream."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.processes import run_python

QUICKLY = "nested"  # the place that `make test` tries; an evaluation takes most of a minute
PLACES = ["list", "dict", "tuple", "nested", "attribute", "list-in-a-module", "loss", "dataset"]
HONEST = {"edm": "edm-song.pkl", "edm2": "rgb.pkl"}
QUICK = {"edm": ["--", "--steps=2"], "edm2": []}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, detector) -> Path:
    """A folder with the detector and statistics of real images."""
    for needed in ("PIL", "scipy", "requests"):
        pytest.importorskip(needed)
    root = tmp_path_factory.mktemp("world")
    detector(root)
    statistics = {"mu": np.zeros(2048), "sigma": np.eye(2048)}
    np.savez(root / "ref.npz", **statistics)
    (root / "ref.pkl").write_bytes(pickle.dumps({"fid": statistics}))
    return root


@pytest.fixture
def ddo(world, tmp_path):
    """A function: arguments -> the finished command, and whether a stranger's code was run."""

    def run(*arguments: object) -> tuple[subprocess.CompletedProcess[str], bool]:
        mark = tmp_path / "pwned"
        mark.unlink(missing_ok=True)
        env = {"DNNLIB_CACHE_DIR": str(world / "cache"), "PYTHONPATH": str(world), "DDO_CACHE": str(world / "ddo")}
        own = {"PWNED": str(mark), "OMP_NUM_THREADS": "1", "DDO_DEVICE": "cpu"}
        done = run_python(["-m", "ddo_plugin", *arguments], cwd=tmp_path, env={**os.environ, **env, **own})
        return done, mark.exists()

    return run


def evaluation(upstream: str, network: Path, world: Path, checkout, out: Path) -> list[object]:
    ref = world / ("ref.npz" if upstream == "edm" else "ref.pkl")
    return ["eval", network, f"--checkout={checkout(upstream)}", f"--ref={ref}", "--num=4", "--batch=4", f"--out={out}"]


@pytest.mark.parametrize("upstream", ["edm", "edm2"])
@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=[pytest.mark.thorough] * (place != QUICKLY)) for place in PLACES]
)
def test_upstreams_scripts_never_see_a_hidden_object(upstream, place, world, checkout, snapshots, ddo, tmp_path):
    network, out = snapshots(upstream) / f"hidden-{place}.pkl", tmp_path / "eval.json"
    done, executed = ddo(*evaluation(upstream, network, world, checkout, out), *QUICK[upstream])
    assert not executed
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]


def test_trust_runs_the_code_in_the_file(world, checkout, snapshots, ddo, tmp_path):
    """Otherwise the test above could not fail."""
    network = snapshots("edm") / "hidden-list.pkl"
    arguments = evaluation("edm", network, world, checkout, tmp_path / "eval.json")
    assert ddo(*arguments, "--trust", *QUICK["edm"])[1]


def test_upstreams_script_never_sees_an_object_in_the_statistics(world, checkout, snapshots, ddo, tmp_path):
    ref, network = snapshots("edm2") / "hidden-statistics.pkl", snapshots("edm2") / "rgb.pkl"
    arguments = ["eval", network, f"--checkout={checkout('edm2')}", "--num=4", "--batch=4"]
    done, executed = ddo(*arguments, f"--ref={ref}", f"--out={tmp_path / 'eval.json'}")
    assert not executed
    assert "statistics do not need" in done.stderr


def test_a_guide_reaches_the_sampler_without_its_hidden_object(world, checkout, snapshots, ddo, tmp_path):
    folder = snapshots("edm2")
    arguments = evaluation("edm2", folder / "rgb.pkl", world, checkout, tmp_path / "eval.json")
    guide = ["--", f"--gnet={folder / 'hidden-list.pkl'}", "--guidance=2", "--steps=2"]
    done, executed = ddo(*arguments, *guide)
    assert not executed
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("upstream", ["edm", "edm2"])
def test_inspect_shows_the_source_of_a_hidden_object(upstream, checkout, snapshots, ddo):
    for place in PLACES:
        done, executed = ddo("inspect", snapshots(upstream) / f"hidden-{place}.pkl", f"--checkout={checkout(upstream)}")
        assert not executed
        assert "  Hidden: " in done.stdout and "unlike any module of this checkout" in done.stdout, place


@pytest.mark.parametrize("upstream", ["edm", "edm2"])
def test_sampling_runs_no_hidden_object(upstream, checkout, snapshots, ddo, tmp_path):
    network, root = snapshots(upstream) / "hidden-nested.pkl", checkout(upstream)
    common = [f"--checkout={root}", f"--network={network}", "--steps=2"]
    for name, arguments in (
        ("sample", ["sample", *common, "--seeds=0-3", f"--outdir={tmp_path / 'images'}"]),
        ("refset", ["refset", "make", *common, "--count=4", f"--out={tmp_path / 'set'}"]),
    ):
        done, executed = ddo(*arguments)
        assert not executed
        assert done.returncode == 0, name + done.stderr
