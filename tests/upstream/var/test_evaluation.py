"""A VAR network judged as self-play asks for it: images by `ddo sample`, measured by `ddo eval`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.base.files import sha256_file
from ddo_plugin.evaluation.image_sets import read_images
from ddo_plugin.evaluation.metrics.frechet import feature_moments, frechet_distance
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import EvaluationStep
from tests.upstream.plugin_site import install

pytestmark = pytest.mark.thorough

# Features of another plugin's: mean and spread of each channel.
PLUGIN = """
import numpy as np
from ddo_plugin import hookimpl

def features(images):
    flat = images.reshape(*images.shape[:2], -1).astype(np.float64)
    return np.concatenate([flat.mean(-1), flat.std(-1)], 1)

@hookimpl
def ddo_features(name):
    return features if name == "brightness" else None
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "brightness", PLUGIN)


def test_the_score_is_the_mean_distance_over_disjoint_seeds(world, site, completed, tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    settings = {
        "checkout": world.repo,
        "ref": world.data / "val",
        "features": "brightness",
        "metrics": "fid",
        "num": 12,
    }
    step = EvaluationStep("var", world.base, out, (0, 2), settings)
    command = plugins.manager().hook.ddo_evaluation_command(step=step)
    path = f"{site}:{world.variables['PYTHONPATH']}"
    completed(world.python(*command.argv[1:], **command.env, PYTHONPATH=path))
    found = json.loads(out.read_text())
    assert found["score"] == pytest.approx(np.mean(found["scores"]))
    assert [one["seed"] for one in found["by_seed"]] == [0, 2]
    assert [("--seeds=0-11" in line, "--seeds=24-35" in line) for line in found["commands"][::2]] == [
        (True, False),
        (False, True),
    ]
    assert found["network"] == {"source": str(world.base), "sha256": sha256_file(world.base)}
    assert all("--cfg=0.0" in line for line in found["commands"][::2])
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]

    npz = tmp_path / "again.npz"
    sampled = ["sample", f"--checkout={world.repo}", f"--network={world.base}", "--labels=uniform", "--seeds=0-11"]
    completed(world.python("-m", "ddo_plugin", *sampled, f"--npz={npz}", PYTHONPATH=path))
    features: dict = {}
    exec(PLUGIN, features)
    ours, real = (
        feature_moments(np.concatenate([features["features"](batch) for batch in read_images(source).batches(4)]))
        for source in (npz, world.data / "val")
    )
    assert found["scores"][0] == pytest.approx(frechet_distance(ours, real))


def evaluate(world, site: Path, network: Path, *arguments: object):
    path = f"{site}:{world.variables['PYTHONPATH']}"
    options = [f"--checkout={world.repo}", "--num=6", *arguments]
    return world.python("-m", "ddo_plugin", "eval", network, *options, PYTHONPATH=path, DDO_INCEPTION="none.pth")


def test_arguments_after_the_dashes_guide_and_other_features_measure(world, site, completed, tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    arguments = [f"--ref={world.data / 'val'}", "--features=brightness", f"--out={out}", "--", "--cfg=1.5"]
    assert "\nfid  " in completed(evaluate(world, site, world.base, *arguments))
    found = json.loads(out.read_text())
    assert found["features"]["name"] == "brightness"
    assert found["metrics"].keys() == {"fid", "precision", "recall"}
    assert "--cfg=1.5" in found["commands"][0]


REFUSALS = {
    "features 'inception' need weights": [],
    "unknown metric 'fd'": ["--metrics=fd"],
    "no-such.npz: no such file": ["--features=brightness", "--ref=no-such.npz"],
    "/proc/e.json cannot be written": ["--features=brightness", "--out=/proc/e.json"],
    "contain no code; drop": ["--trust"],
}


@pytest.mark.parametrize("words", REFUSALS)
def test_what_cannot_be_measured_is_refused_before_an_image_is_made(words, world, site, refused, tmp_path) -> None:
    usual = [f"--ref={world.data / 'val'}", f"--out={tmp_path / 'e.json'}"]
    assert words in refused(evaluate(world, site, world.base, *usual, *REFUSALS[words]))
    assert not list(tmp_path.iterdir())


def test_an_evaluation_offers_upstreams_sampler_without_the_round_trip_of_fakes() -> None:
    hook = plugins.manager().hook
    sampling, evaluation = (
        {option.name for option in plugins.collect(offered(upstream="var"))}
        for offered in (hook.ddo_generator_options, hook.ddo_evaluation_options)
    )
    assert sampling - evaluation == {"through_pixels", "ddo_sha256"}


def test_samples_are_told_where_they_are_judged(world, site, refused, tmp_path: Path) -> None:
    arguments = [f"--ref={world.data / 'val'}", f"--out={tmp_path / 'e.json'}"]
    assert "holds samples, and upstream has no script" in refused(evaluate(world, site, world.data / "val", *arguments))
