"""The real fid.py and calculate_metrics.py through `ddo eval --checkout` and the step of self-play, on a CPU.

Upstream downloads its Inception network; where the download would be cached lies a stand-in, whose only feature is an
image's mean: the distance is that of two normal distributions of numbers.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.base.files import sha256_file
from ddo_plugin.evaluation.metrics.frechet import Moments
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import EvaluationStep
from ddo_plugin.sampling.refsets import format as refset
from tests.processes import run_python
from tests.upstream.plugin_site import install

pytestmark = pytest.mark.thorough

Image = pytest.importorskip("PIL.Image")
COUNT = 48
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 16, 16), dtype=np.uint8)
MODEL = Moments(np.eye(2048)[0] * 100, np.diag(np.eye(2048)[0] * 4))
SNAPSHOTS = {"edm": "edm-song.pkl", "edm2": "rgb.pkl"}


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {"OMP_NUM_THREADS": "1", "DDO_DEVICE": "cpu"}
    return run_python(command, env={**os.environ, **settings, **env})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, detector) -> Path:
    """A folder with the detector, statistics in both formats and a reference set."""
    for needed in ("PIL", "scipy", "requests"):
        pytest.importorskip(needed)
    root = tmp_path_factory.mktemp("world")
    detector(root)
    np.savez(root / "ref.npz", mu=MODEL.mean, sigma=MODEL.covariance)
    (root / "ref.pkl").write_bytes(pickle.dumps({"fid": {"mu": MODEL.mean, "sigma": MODEL.covariance}}))
    made_by = {"source": "a.pkl", "sha256": "00"}
    refset.write(root / "samples", IMAGES, None, kind="images", reference=made_by, sampler={}, seed=0)
    return root


@pytest.fixture(scope="module")
def networks(snapshots) -> dict[str, Path]:
    """A tiny network of each upstream, with random weights."""
    return {upstream: snapshots(upstream) / name for upstream, name in SNAPSHOTS.items()}


def evaluate(world: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    env = {"DNNLIB_CACHE_DIR": str(world / "cache"), "PYTHONPATH": str(world), "DDO_CACHE": str(world / "ddo")}
    return run("-m", "ddo_plugin", "eval", *arguments, **env)


def status(folder: Path) -> str:
    command = ["git", "-C", str(folder), "status", "--short", "--ignored"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("torchrun", ["", "--standalone --nproc_per_node=2"])
@pytest.mark.parametrize(("upstream", "ref"), [("edm", "ref.npz"), ("edm2", "ref.pkl")])
def test_samples_are_judged_by_upstreams_own_script(upstream, ref, torchrun, world, checkout, completed, tmp_path):
    """A reference set, which upstream cannot read, is unpacked for it; the checkout stays as it is."""
    folder, out = checkout(upstream), tmp_path / "eval.json"
    before = status(folder)
    arguments = [f"--checkout={folder}", f"--ref={world / ref}", f"--num={COUNT}", f"--out={out}", "--batch=16"]
    if torchrun:
        arguments.append(f"--torchrun={torchrun}")
    printed = completed(evaluate(world, world / "samples", *arguments))
    means = IMAGES.mean((1, 2, 3), dtype=np.float64)
    found = json.loads(out.read_text())
    assert found["score"] == pytest.approx((means.mean() - 100) ** 2 + (means.std(ddof=1) - 2) ** 2, rel=1e-4)
    assert found["metrics"] == {"fid": found["score"]}
    assert printed.split() == ["fid", f"{found['score']:.6g}"]
    assert found["reference"] == {"source": str(world / ref), "sha256": sha256_file(world / ref)}
    assert (found["checkout"]["upstream"], found["count"]) == (upstream, COUNT)
    assert "--seed=0" in found["commands"][0]
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]
    assert status(folder) == before


@pytest.mark.parametrize(("upstream", "ref", "seeds"), [("edm", "ref.npz", [2]), ("edm2", "ref.pkl", [0, 2])])
def test_a_network_is_judged_on_disjoint_blocks_of_seeds(upstream, ref, seeds, world, networks, checkout, tmp_path):
    """As self-play asks for it: the command comes from the hook, the score is the mean over the seeds."""
    out = tmp_path / "eval.json"
    settings = {"checkout": checkout(upstream), "ref": world / ref, "num": 4, "batch": 4}
    settings["sampler"] = "--steps=2" if upstream == "edm" else None
    step = EvaluationStep(upstream, networks[upstream], out, seeds, settings)
    command = plugins.manager().hook.ddo_evaluation_command(step=step)
    env = {"DNNLIB_CACHE_DIR": str(world / "cache"), "PYTHONPATH": str(world), "DDO_CACHE": str(world / "ddo")}
    done = run(*command.argv[1:], **command.env, **env)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [one["seed"] for one in found["by_seed"]] == seeds
    assert found["score"] == pytest.approx(np.mean(found["scores"]))
    assert len(set(found["scores"])) == len(seeds)
    assert found["network"] == {"source": str(networks[upstream]), "sha256": sha256_file(networks[upstream])}
    third = [command for command in found["commands"] if "--seeds=8-11" in command or "--seed=8" in command]
    assert len(third) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]


@pytest.mark.parametrize(
    ("upstream", "script", "own"),
    [("edm", "fid.py", ["--ref={}/ref.npz"]), ("edm2", "calculate_metrics.py", ["--metrics=fid", "--ref={}/ref.pkl"])],
)
def test_the_releases_commands_for_fid_run_on_two_ranks(upstream, script, own, world, networks, checkout, tmp_path):
    """`ddo sample` and then upstream's script by `ddo run`, as docs/refsets.md has them."""
    folder, launcher = checkout(upstream), "--torchrun=--standalone --nproc_per_node=2"
    env = {"DNNLIB_CACHE_DIR": str(world / "cache"), "PYTHONPATH": str(world), "DDO_CACHE": str(world / "ddo")}
    flags = [f"--checkout={folder}", f"--network={networks[upstream]}", "--seeds=0-5", "--subdirs", "--steps=2"]
    images = tmp_path / "fid-tmp"
    done = run("-m", "ddo_plugin", "sample", launcher, *flags, "--labels=uniform", f"--outdir={images}", **env)
    assert done.returncode == 0, done.stderr
    calc = ["calc", f"--images={images}", "--num=6", *(flag.format(world) for flag in own)]
    done = run("-m", "ddo_plugin", "run", launcher, folder, script, "--", *calc, **env)
    assert done.returncode == 0, done.stderr
    read = np.stack([np.asarray(Image.open(path)) for path in images.rglob("*.png")]).astype(np.float64)
    means = read.mean((1, 2, 3))
    assert len(means) == 6
    found = float(re.findall(r"\d+\.?\d*(?:e[+-]\d+)?", done.stdout)[-1])
    assert found == pytest.approx((means.mean() - 100) ** 2 + (means.std(ddof=1) - 2) ** 2, rel=1e-3)


# Stands before the built-in features of the same name: those of the stand-in detector.
SAME_FEATURES = """
import numpy as np
from ddo_plugin import hookimpl

def features(images):
    rows = np.zeros((len(images), 2048))
    rows[:, 0] = images.mean((1, 2, 3))
    return rows

@hookimpl
def ddo_features(name):
    return features if name == "inception" else None
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "same_features", SAME_FEATURES)


@pytest.mark.parametrize(
    ("upstream", "calc", "suffix"),
    [
        ("edm", ["fid.py", "--", "calc"], ".npz"),
        ("edm2", ["calculate_metrics.py", "--", "calc", "--metrics=fid"], ".pkl"),
    ],
)
def test_upstreams_scripts_read_the_statistics_that_we_save(
    upstream, calc, suffix, world, site, checkout, completed, tmp_path
):
    """Images are at distance 0 from their own statistics."""
    env = {"DNNLIB_CACHE_DIR": str(world / "cache"), "PYTHONPATH": f"{site}:{world}", "DDO_CACHE": str(world / "ddo")}
    ref, images = tmp_path / f"mine{suffix}", tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image.transpose(1, 2, 0)).save(images / f"{number:02d}.png")
    completed(run("-m", "ddo_plugin", "eval", images, f"--save-statistics={ref}", **env))
    if suffix == ".npz":
        arrays = np.load(ref)
        assert {name: arrays[name].shape for name in arrays} == {"mu": (2048,), "sigma": (2048, 2048)}
    arguments = [f"--images={images}", f"--ref={ref}", f"--num={COUNT}"]
    printed = completed(run("-m", "ddo_plugin", "run", checkout(upstream), *calc, *arguments, **env))
    assert float(re.findall(r"-?\d+\.?\d*(?:e[+-]\d+)?", printed)[-1]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("upstream", "ref"), [("edm", "ref.npz"), ("edm2", "ref.pkl")])
def test_real_images_add_recall_to_upstreams_fid(upstream, ref, world, site, networks, checkout, tmp_path) -> None:
    out, real = tmp_path / "eval.json", tmp_path / "real.npz"
    np.savez(real, arr_0=IMAGES.transpose(0, 2, 3, 1))
    env = {"DNNLIB_CACHE_DIR": str(world / "cache"), "PYTHONPATH": f"{site}:{world}", "DDO_CACHE": str(world / "ddo")}
    arguments = [
        f"--checkout={checkout(upstream)}",
        f"--ref={world / ref}",
        f"--real={real}",
        "--num=8",
        f"--out={out}",
    ]
    done = run("-m", "ddo_plugin", "eval", networks[upstream], *arguments, "--", "--steps=2", **env)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["metrics"].keys() == {"fid", "precision", "recall"}
    assert 0 <= found["metrics"]["recall"] <= 1
    assert found["score"] == found["metrics"]["fid"]
    assert {path.name for path in tmp_path.iterdir()} == {"eval.json", "real.npz"}


def test_arguments_after_the_dashes_go_to_the_sampler(world, networks, checkout, completed, tmp_path) -> None:
    """EDM2's `gen` takes none, so images are generated first and then measured."""
    out = tmp_path / "eval.json"
    arguments = [f"--checkout={checkout('edm2')}", f"--ref={world / 'ref.pkl'}", "--num=4", f"--out={out}"]
    completed(evaluate(world, networks["edm2"], *arguments, "--", "--steps=2"))
    generate, calc = json.loads(out.read_text())["commands"]
    assert generate.startswith("generate_images.py --subdirs") and generate.endswith("--batch=64 --steps=2")
    assert calc.startswith("calculate_metrics.py calc")


@pytest.mark.parametrize(("upstream", "ref"), [("edm", "ref.npz"), ("edm2", "ref.pkl")])
def test_with_labels_the_images_are_ours_and_the_figure_is_upstreams(
    upstream, ref, world, networks, checkout, tmp_path
):
    """Recipes ask so for balanced classes, which upstream's samplers do not make."""
    out = tmp_path / "eval.json"
    settings = {"checkout": checkout(upstream), "ref": world / ref, "num": 10, "batch": 5, "labels": "uniform"}
    step = EvaluationStep(upstream, networks[upstream], out, [1], {**settings, "sampler": "--steps=2"})
    command = plugins.manager().hook.ddo_evaluation_command(step=step)
    env = {"DNNLIB_CACHE_DIR": str(world / "cache"), "PYTHONPATH": str(world), "DDO_CACHE": str(world / "ddo")}
    done = run(*command.argv[1:], **command.env, **env)
    assert done.returncode == 0, done.stderr
    sample, judge = json.loads(out.read_text())["commands"]
    assert sample.startswith("ddo sample") and "--labels=uniform" in sample and "--seeds=10-19" in sample
    assert " calc " in judge
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]


def test_a_network_with_source_of_its_own_is_measured_as_the_checkouts_class(world, networks, checkout, tmp_path):
    network = networks["edm"].with_name("tampered-source.pkl")
    arguments = [f"--checkout={checkout('edm')}", f"--ref={world / 'ref.npz'}", "--num=4", f"--out={tmp_path / 'e'}"]
    done = evaluate(world, network, *arguments, "--", "--steps=2")
    assert done.returncode == 0, done.stderr
    assert "carries source that differs from the checkout's; the checkout's is used" in done.stderr
    assert str(network) in json.loads((tmp_path / "e").read_text())["commands"][0]


def test_a_network_of_another_upstream_is_told_by_its_class(world, networks, checkout, refused, tmp_path) -> None:
    arguments = [f"--checkout={checkout('edm')}", f"--ref={world / 'ref.npz'}", f"--out={tmp_path / 'e'}"]
    line = refused(evaluate(world, networks["edm2"], *arguments))
    assert f"its network is a Precond of training.networks_edm2, which {checkout('edm')} does not have" in line


def test_upstreams_scripts_have_features_of_their_own(world, networks, checkout, refused, tmp_path) -> None:
    arguments = [f"--checkout={checkout('edm')}", f"--ref={world / 'ref.npz'}", f"--out={tmp_path / 'e'}"]
    assert "--features applies to the metrics of this package" in refused(
        evaluate(world, networks["edm"], *arguments, "--features=inception")
    )


def test_a_script_that_fails_leaves_no_result(world, networks, checkout, tmp_path) -> None:
    arguments = [f"--checkout={checkout('edm')}", f"--ref={world / 'ref.npz'}", "--num=4", f"--out={tmp_path / 'e'}"]
    done = evaluate(world, networks["edm"], *arguments, "--", "--solver=none")
    assert done.returncode == 2
    assert "Invalid value for '--solver'" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: generate.py of ")
    assert not list(tmp_path.iterdir())


def test_wrong_statistics_are_refused_before_anything_is_generated(world, networks, checkout, refused, tmp_path):
    (tmp_path / "ref.npz").write_bytes(b"PK")
    arguments = [f"--checkout={checkout('edm')}", f"--ref={tmp_path / 'ref.npz'}", f"--out={tmp_path / 'e'}"]
    assert "cannot be read" in refused(evaluate(world, networks["edm"], *arguments))
    arguments = [f"--checkout={checkout('edm')}", f"--ref={world / 'ref.pkl'}", f"--out={tmp_path / 'e'}"]
    assert "(NVlabs/edm) reads statistics from .npz files only" in refused(evaluate(world, networks["edm"], *arguments))
    arguments = [f"--checkout={checkout('edm')}", f"--ref={world / 'ref.npz'}", f"--out={tmp_path / 'e'}"]
    assert f"add --num={COUNT}" in refused(evaluate(world, world / "samples", *arguments))
    only_dino = tmp_path / "ref.pkl"
    only_dino.write_bytes(pickle.dumps({"fd_dinov2": {"mu": np.zeros(2), "sigma": np.eye(2)}}))
    arguments = [f"--checkout={checkout('edm2')}", f"--ref={only_dino}", f"--out={tmp_path / 'e'}"]
    assert "no statistics for fid" in refused(evaluate(world, networks["edm2"], *arguments))
