"""`ddo merge` on real networks of EDM, whose pristine generate.py samples the result."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from ddo_plugin.base.files import sha256_file
from ddo_plugin.snapshots import sidecar
from tests.upstream.snapshots import tensors

PRISTINE = Path(__file__).with_name("pristine.py")
START = "base/network-snapshot-000000.pkl"


@pytest.fixture(scope="module")
def merged(world, completed) -> Callable[[str], Path]:
    """A function: w -> the network that `ddo merge` made of the untrained and the trained network."""
    out = world.root / "merged"
    flags = ["--w=0,0.5,1,1.5,-1", f"--outdir={out}", f"--checkout={world.repo}"]
    told = completed(world.python("-m", "ddo_plugin", "merge", world.root / START, world.base, *flags))
    assert "a network of the class EDMPrecond with" in told
    return lambda w: out / f"network-snapshot-000002-w{w}.pkl"


def test_w_0_and_1_reproduce_the_parents_bit_for_bit(merged, world) -> None:
    for w, parent in (("0", world.root / START), ("1", world.base)):
        made, stored = tensors(merged(w)), tensors(parent)
        assert made.keys() == stored.keys()
        assert all(made[name].dtype == stored[name].dtype and made[name].equal(stored[name]) for name in stored)


def test_the_others_are_on_the_line_through_them(merged, world) -> None:
    a, b = tensors(world.root / START), tensors(world.base)
    moved = [name for name in a if not a[name].equal(b[name])]
    assert len(moved) > 10
    for w in ("0.5", "1.5", "-1"):
        made = tensors(merged(w))
        for name in moved:
            exact = a[name].double() + float(w) * (b[name].double() - a[name].double())
            assert made[name].equal(exact.float())


def test_the_sidecar_names_the_parents(merged, world) -> None:
    told = sidecar.read(merged("1.5"))
    assert told["merge"]["w"] == 1.5
    assert told["merge"]["b"] == {"source": str(world.base), "sha256": sha256_file(world.base)}
    assert (told["upstream"], told["sha256"]) == ("edm", sha256_file(merged("1.5")))


def test_pristine_generate_py_samples_it_without_our_package_as_ddo_sample_does(
    merged, world, completed, tmp_path
) -> None:
    image = pytest.importorskip("PIL.Image")
    for w in ("0.5", "1.5"):
        flags = [f"--network={merged(w)}", "--seeds=0-3", "--steps=3", "--batch=4"]
        theirs, ours = tmp_path / f"theirs-{w}", tmp_path / f"ours-{w}"
        path = os.pathsep.join([str(world.repo), *filter(None, [world.variables.get("PYTHONPATH")])])
        completed(world.python(PRISTINE, *flags, f"--outdir={theirs}", PYTHONPATH=path))
        completed(world.python("-m", "ddo_plugin", "sample", f"--checkout={world.repo}", *flags, f"--outdir={ours}"))
        for name in ("000000.png", "000003.png"):
            assert image.open(theirs / name).tobytes() == image.open(ours / name).tobytes()


def test_it_is_inspected_and_the_reference_of_a_round(merged, world, completed, tmp_path) -> None:
    told = completed(world.python("-m", "ddo_plugin", "inspect", merged("1.5"), f"--checkout={world.repo}"))
    assert "The checkout loads it without running its code." in told
    fakes = ["--count=40", "--steps=2", f"--out={tmp_path / 'fakes'}", f"--checkout={world.repo}"]
    completed(world.python("-m", "ddo_plugin", "refset", "make", f"--network={merged('1.5')}", *fakes))
    flags = [f"--ddo-fakes={tmp_path / 'fakes'}", "--duration=0.0002", f"--outdir={tmp_path / 'out'}", "--ddo-strict"]
    completed(world.train(f"--ddo={merged('1.5')}", *flags))
    made = sidecar.read(sidecar.snapshots(tmp_path / "out")[-1])
    assert made["reference"]["sha256"] == sidecar.sha256(merged("1.5"))


@pytest.mark.thorough
def test_upstreams_fid_judges_it(merged, world, completed, detector, tmp_path) -> None:
    np = pytest.importorskip("numpy")
    np.savez(tmp_path / "ref.npz", mu=np.eye(2048)[0] * 120, sigma=np.diag(np.eye(2048)[0] * 900))
    own = [f"--checkout={world.repo}", f"--ref={tmp_path / 'ref.npz'}", f"--out={tmp_path / 'eval.json'}", "--num=8"]
    run = ["-m", "ddo_plugin", "eval", merged("1.5"), *own, "--", "--steps=2"]
    assert "fid" in completed(world.python(*run, **detector(tmp_path)))


REFUSED = {
    ("edm-song", "vp-song"): "has 10 classes, but {b} is unconditional; merge snapshots of one network",
    ("edm-song", "edm-adm"): "different architectures: model is SongUNet and DhariwalUNet",
    ("edm-adm", "iddpm-adm"): "different architectures: network is EDMPrecond and iDDPMPrecond",
    ("tampered-setting", "edm-song"): "sigma_data is 0.7 in the file, 0.5 in the checkout",
}


@pytest.fixture
def refuse(world, refused, tmp_path) -> Callable[..., str]:
    """A function: two networks -> the line that refuses to merge them, after which nothing is there."""

    def told(a: Path, b: Path, *flags: str) -> str:
        own = ["--w=0.5", f"--out={tmp_path / 'new/new.pkl'}", f"--checkout={world.repo}"]
        line = refused(world.python("-m", "ddo_plugin", "merge", a, b, *own, *flags))
        assert not (tmp_path / "new").exists()
        return line

    return told


@pytest.mark.parametrize(("names", "why"), REFUSED.items())
def test_networks_that_do_not_belong_together_are_refused(names, why, snapshots, refuse) -> None:
    a, b = (snapshots("edm") / f"{name}.pkl" for name in names)
    assert why.format(b=b) in refuse(a, b)


def test_networks_of_another_size_are_refused(snapshots, world, refuse) -> None:
    assert "has 3 classes, but" in refuse(world.base, snapshots("edm") / "edm-song.pkl")


def test_a_network_of_another_upstream_is_refused(snapshots, world, refuse) -> None:
    assert "a module of another upstream" in refuse(world.base, snapshots("edm2") / "rgb.pkl")


def test_a_damaged_file_is_refused(world, refuse, tmp_path) -> None:
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(world.base.read_bytes()[:-1000])
    assert "cut.pkl" in refuse(world.base, cut)


def test_no_code_of_a_file_is_run(world, refuse, tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps({"ema": Evil()}))
    assert "add --ddo-trust" in refuse(world.base, evil)
    assert not (tmp_path / "executed").exists()


def test_with_trust_the_result_is_the_same(merged, world, completed, tmp_path) -> None:
    out = tmp_path / "new.pkl"
    flags = ["--w=1.5", f"--out={out}", f"--checkout={world.repo}", "--ddo-trust"]
    completed(world.python("-m", "ddo_plugin", "merge", world.root / START, world.base, *flags))
    made, expected = tensors(out), tensors(merged("1.5"))
    assert all(made[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["nested", "attribute", "list-in-a-module", "loss", "dataset"])
def test_an_object_hidden_in_a_parent_does_not_reach_the_result(name, snapshots, checkout, completed, world, tmp_path):
    hidden, honest = (snapshots("edm") / f"{each}.pkl" for each in (f"hidden-{name}", "edm-song"))
    out, marker = tmp_path / "new.pkl", tmp_path / "executed"
    flags = ["--w=0", f"--out={out}", f"--checkout={world.repo}"]
    process = world.python("-m", "ddo_plugin", "merge", hidden, honest, *flags, PWNED=str(marker))
    if process.returncode == 0:
        load = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
        completed(world.python("-c", load, out, PYTHONPATH=str(world.repo), PWNED=str(marker)))
    else:
        assert not out.exists()
    assert not marker.exists()
