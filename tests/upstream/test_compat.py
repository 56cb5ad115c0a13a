"""EDM and EDM2 on a CPU and today's stack, pristine but for one test: train, resume, generate, measure, two ranks."""

import json
import os
import pickle
import pickletools
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.thorough

pytest.importorskip("PIL.Image")
pytest.importorskip("scipy")

COMPAT = ["-m", "ddo_plugin.checkouts.compat"]
TWO_RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
EDM = [
    "--nosubdir",
    "--cond=1",
    "--arch=ddpmpp",
    "--cbase=8",
    "--cres=1",
    "--batch=32",
    "--tick=1",
    "--snap=1",
    "--dump=1",
]
BATCH, PIXELS = 32, 3 * 8 * 8

# The presets of train_edm2.py begin at 64 channels and 1024 images a snapshot; its loop takes any network.
EDM2_DRIVER = """
import sys
import os
import torch
import dnnlib
from torch_utils import distributed as dist
from training.training_loop import training_loop

if __name__ == "__main__":
    data, outdir, nimg = sys.argv[1:]
    torch.multiprocessing.set_start_method("spawn")
    dist.init()
    os.makedirs(outdir, exist_ok=True)
    training_loop(
        dataset_kwargs={"class_name": "training.dataset.ImageFolderDataset", "path": data, "use_labels": True},
        encoder_kwargs={"class_name": "training.encoders.StandardRGBEncoder"},
        network_kwargs={"class_name": "training.networks_edm2.Precond", "model_channels": 8, "channel_mult": [1, 2],
            "num_blocks": 1, "attn_resolutions": [4]},
        run_dir=outdir, batch_size=128, total_nimg=int(nimg), status_nimg=1024, snapshot_nimg=1024,
        checkpoint_nimg=1024,
    )
"""

PIXEL_DETECTOR = """
import torch

class Detector(torch.nn.Module):
    def forward(self, images, return_features):
        return images.to(torch.float32).flatten(1).repeat(1, 11)[:, :2048]
"""


def run(*command, check: bool = True, **variables: str) -> str:
    """Run python; its output, errors included."""
    with socket.socket() as free:  # EDM takes port 29500 unless it is told another, whoever else has it
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "DDO_DEVICE": "cpu", "MASTER_PORT": port}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **settings, **variables},
    )
    assert (done.returncode == 0) == check, done.stdout
    return done.stdout


def statistics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


@pytest.fixture(scope="module")
def edm(checkout):
    return checkout("edm")


@pytest.fixture(scope="module")
def edm2(checkout):
    return checkout("edm2")


@pytest.fixture(scope="module")
def data(edm, tmp_path_factory):
    """64 labelled images of 8 x 8 pixels, packed by upstream's own tool."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    draw = np.random.default_rng(0)
    names = [f"{number:02d}.png" for number in range(64)]
    for name in names:
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "images" / name)
    labels = [[name, number % 2] for number, name in enumerate(names)]
    (folder / "images/dataset.json").write_text(json.dumps({"labels": labels}))
    run(*COMPAT, edm / "dataset_tool.py", f"--source={folder / 'images'}", f"--dest={folder / 'data.zip'}")
    return folder / "data.zip"


@pytest.fixture(scope="module")
def edm_run(edm, data, tmp_path_factory):
    """A folder with a run of 1 kimg; no seed is given, so train.py draws it where it thinks the GPU is."""
    folder = tmp_path_factory.mktemp("edm")
    run(*COMPAT, edm / "train.py", f"--outdir={folder}", f"--data={data}", *EDM, "--duration=0.001")
    return folder


@pytest.fixture(scope="module")
def edm2_run(edm2, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edm2")
    (folder / "driver.py").write_text(EDM2_DRIVER)
    run(*COMPAT, folder / "driver.py", data, folder / "run", 1024, PYTHONPATH=str(edm2))
    return folder / "run"


def generate(script: Path, network: Path, outdir: Path, *launcher: object) -> dict[str, bytes]:
    option = "--network" if script.name == "generate.py" else "--net"
    run(
        *launcher, *COMPAT, script, f"{option}={network}", f"--outdir={outdir}", "--seeds=0-3", "--batch=2", "--steps=3"
    )
    return pictures(outdir)


def test_edm_trains(edm_run):
    assert [line["Progress/kimg"]["mean"] for line in statistics(edm_run)] == pytest.approx([0.032, 1.024])
    assert (edm_run / "network-snapshot-000001.pkl").is_file()


def test_edm_resumes_its_optimizer(edm, data, edm_run, tmp_path):
    state = edm_run / "training-state-000001.pt"
    command = [*COMPAT, edm / "train.py", f"--outdir={tmp_path}", f"--data={data}", *EDM]
    command += ["--seed=1", "--duration=0.002", f"--resume={state}"]
    assert "weights_only" in run(*command, check=False, DDO_COMPAT_OFF="weights-only")
    run(*command)
    read = "import sys, torch; state = torch.load(sys.argv[1], weights_only=False)['optimizer_state']['state']"
    read += "; print(int(state[0]['step']))"
    states = (state, tmp_path / "training-state-000002.pt")
    assert [int(run("-c", read, path, PYTHONPATH=str(edm))) for path in states] == [32, 64]


@pytest.mark.parametrize(("fix", "words"), [("sampler", "TypeError"), ("cpu", "(?i)nccl|cuda")])
def test_edm_does_not_train_without(fix, words, edm, data, tmp_path):
    from ddo_plugin.checkouts import compat

    if not next(known for known in compat.BUILT_IN if known.name == fix).needed():
        pytest.skip(f"this environment does not need the fix {fix}")
    command = [
        *COMPAT,
        edm / "train.py",
        f"--outdir={tmp_path}",
        f"--data={data}",
        *EDM,
        "--seed=1",
        "--duration=0.001",
    ]
    assert re.search(words, run(*command, check=False, DDO_COMPAT_OFF=fix).splitlines()[-1])


def test_a_patched_edm_trains_without_a_word_about_compat(edm, data, tmp_path):
    train = ["-m", "ddo_plugin", "run", edm, "train.py", "--", f"--outdir={tmp_path / 'run'}", f"--data={data}", *EDM]
    output = run(*train, "--duration=0.001", DDO_CACHE=str(tmp_path / "cache"))
    assert "ddo: running on the CPU (DDO_DEVICE=cpu)" in output
    assert (tmp_path / "run/network-snapshot-000001.pkl").is_file()


def test_edm_snapshots_name_numpy_as_numpy_1_does(edm_run):
    data = (edm_run / "network-snapshot-000001.pkl").read_bytes()
    words = {word for _, word, _ in pickletools.genops(data) if isinstance(word, str) and len(word) < 99}
    assert {word for word in words if word.startswith("numpy.")} == {"numpy.core.multiarray"}


def test_edm_generates_the_same_on_one_and_on_two_processes(edm, edm_run, tmp_path):
    script, network = edm / "generate.py", edm_run / "network-snapshot-000001.pkl"
    alone = generate(script, network, tmp_path / "1")
    assert len(alone) == 4
    assert generate(script, network, tmp_path / "2", *TWO_RANKS) == alone


def test_ddo_run_starts_generate_by_torchrun(edm, edm_run, tmp_path):
    ddo_run = ["-m", "ddo_plugin", "run", "--torchrun", " ".join(TWO_RANKS[2:]), edm, "generate.py", "--"]
    run(*ddo_run, f"--network={edm_run / 'network-snapshot-000001.pkl'}", f"--outdir={tmp_path}", "--seeds=0-3")
    assert len(pictures(tmp_path)) == 4


def test_edm_trains_on_two_processes_that_share_their_statistics(edm, data, tmp_path):
    train = [edm / "train.py", f"--outdir={tmp_path}", f"--data={data}", *EDM, "--seed=1", "--duration=0.001"]
    run(*TWO_RANKS, *COMPAT, *train)
    assert statistics(tmp_path)[0]["Loss/loss"]["num"] == BATCH * PIXELS


@pytest.fixture
def pixels(detector, tmp_path):
    """The environment in which a picture's features are its pixels."""
    return detector(tmp_path, PIXEL_DETECTOR)


def test_edm_computes_the_statistics_of_its_metric(edm, data, pixels, tmp_path):
    run(*COMPAT, edm / "fid.py", "ref", f"--data={data}", f"--dest={tmp_path / 'edm.npz'}", **pixels)
    with np.load(tmp_path / "edm.npz") as found:
        assert found["mu"].shape == (2048,)
        assert np.allclose(np.diag(found["sigma"])[:192], np.diag(found["sigma"])[192:384])


def test_edm2_computes_the_statistics_of_its_metric(edm2, data, pixels, tmp_path):
    path = tmp_path / "edm2.pkl"
    run(*COMPAT, edm2 / "calculate_metrics.py", "ref", f"--data={data}", f"--dest={path}", "--metrics=fid", **pixels)
    assert b"numpy._core" not in path.read_bytes()
    assert pickle.loads(path.read_bytes())["num_images"] == 64


@pytest.mark.parametrize(
    ("script", "options"), [("edm/fid.py", []), ("edm2/calculate_metrics.py", ["--metrics=fid", "--workers=0"])]
)
def test_the_metric_runs_from_images_to_the_printed_number(script, options, checkout, data, detector, tmp_path):
    """A detector whose only feature is an image's mean: the distance is that of two normal distributions of numbers."""
    from PIL import Image

    sigma = np.zeros((2048, 2048))
    sigma[0, 0] = 4
    np.savez(tmp_path / "ref.npz", mu=np.eye(2048)[0] * 100, sigma=sigma)
    name, _, script = script.partition("/")
    calc = ["calc", f"--images={data.parent / 'images'}", f"--ref={tmp_path / 'ref.npz'}", "--num=64"]
    printed = run(*COMPAT, checkout(name) / script, *calc, *options, **detector(tmp_path))
    means = [np.asarray(Image.open(path), np.float64).mean() for path in sorted((data.parent / "images").glob("*.png"))]
    expected = (np.mean(means) - 100) ** 2 + (np.std(means, ddof=1) - 2) ** 2
    assert float(printed.split()[-1]) == pytest.approx(expected, rel=1e-4)


MOMENTS = """
import numpy as np
mu, sigma = np.array([0.0, 1.0]), np.diag([1.0, 4.0])
mu_ref, sigma_ref = np.array([3.0, 1.0]), np.diag([4.0, 4.0])
"""
FRECHET = {
    "edm": """
from fid import calculate_fid_from_inception_stats
print(calculate_fid_from_inception_stats(mu, sigma, mu_ref, sigma_ref))
""",
    "edm2": """
from calculate_metrics import calculate_metrics_from_stats
stats, ref = {"fid": {"mu": mu, "sigma": sigma}}, {"fid": {"mu": mu_ref, "sigma": sigma_ref}}
print(calculate_metrics_from_stats(stats, ref, ["fid"], verbose=False)["fid"])
""",
}
NEW_SCIPY = """
import inspect, scipy.linalg
old = scipy.linalg.sqrtm
if "disp" in inspect.signature(old).parameters:
    scipy.linalg.sqrtm = lambda A: old(A)
"""


@pytest.mark.parametrize("name", FRECHET)
def test_the_frechet_distance_takes_the_sqrtm_of_this_and_of_later_scipys(name, checkout, tmp_path):
    """|0-3|² + tr(S + T - 2·sqrt(ST)) = 9 + (1 + 4 - 2·2) + (4 + 4 - 2·4) = 10."""
    (tmp_path / "script.py").write_text(MOMENTS + FRECHET[name])
    command = [*COMPAT, tmp_path / "script.py"]
    path = os.pathsep.join([str(tmp_path), str(checkout(name))])
    assert float(run(*command, PYTHONPATH=path).splitlines()[-1]) == pytest.approx(10)
    (tmp_path / "sitecustomize.py").write_text(NEW_SCIPY)
    assert float(run(*command, PYTHONPATH=path).splitlines()[-1]) == pytest.approx(10)
    assert "'disp'" in run(*command, PYTHONPATH=path, check=False, DDO_COMPAT_OFF="sqrtm")


def test_edm2_reads_its_options(edm2, data, tmp_path):
    train = [edm2 / "train_edm2.py", f"--outdir={tmp_path / 'run'}", f"--data={data}", "--preset=edm2-img64-xs"]
    assert "Dry run; exiting." in run(*COMPAT, *train, "--dry-run")


COMPARE = """
import pickle, sys, torch
first, *others = [pickle.load(open(path, "rb"))["ema"].state_dict() for path in sys.argv[1:]]
print([int(all(torch.equal(first[name], other[name]) for name in first)) for other in others])
"""


def test_edm2_trains_resumes_and_generates(edm2, data, edm2_run, tmp_path):
    assert [line["Progress/kimg"] for line in statistics(edm2_run)] == [0, 1.024]
    driver = [*COMPAT, edm2_run.parent / "driver.py", data, edm2_run, 2048]
    assert "weights_only" in run(*driver, check=False, DDO_COMPAT_OFF="weights-only", PYTHONPATH=str(edm2))
    assert "Training from 1 kimg to 2 kimg" in run(*driver, PYTHONPATH=str(edm2))
    assert [line["Progress/kimg"] for line in statistics(edm2_run)] == [0, 1.024, 2.048]
    snapshot = "network-snapshot-0000002-0.100.pkl"
    assert len(generate(edm2 / "generate_images.py", edm2_run / snapshot, tmp_path / "out")) == 4
    run(*COMPAT, edm2_run.parent / "driver.py", data, tmp_path / "whole", 2048, PYTHONPATH=str(edm2))
    earlier = edm2_run / snapshot.replace("0002", "0001")
    compared = run("-c", COMPARE, edm2_run / snapshot, tmp_path / "whole" / snapshot, earlier, PYTHONPATH=str(edm2))
    assert compared.splitlines()[-1] == "[1, 0]", "the resumed run and an uninterrupted one differ"


def test_edm2_trains_on_two_processes(edm2, data, edm2_run, tmp_path):
    driver = [*COMPAT, edm2_run.parent / "driver.py", data, tmp_path / "run", 1024]
    output = run(*TWO_RANKS, *driver, PYTHONPATH=str(edm2))
    assert output.count("ddo: running on the CPU") == 1
    assert statistics(tmp_path / "run")[-1]["Progress/kimg"] == 1.024


def test_the_checkouts_stay_as_they_were(edm, edm2):
    for folder in (edm, edm2):
        status = subprocess.run(["git", "-C", folder, "status", "--short"], capture_output=True, text=True, check=True)
        assert status.stdout == ""
