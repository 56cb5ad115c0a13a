"""Real snapshots of pristine EDM and EDM2: our reader against upstream's own pickle.load."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ddo_plugin.cli import main
from tests.processes import run_python

HERE = Path(__file__).parent
EDM = ["edm-adm", "edm-song", "iddpm-adm", "ve-ncsnpp", "vp-song"]
EDM2 = ["latent", "rgb"]
LOCAL = {"edm": "training/networks.py", "edm2": "training/networks_edm2.py"}


def run(*command, checkout, cwd=None) -> subprocess.CompletedProcess:
    """Python in a process of its own: both repositories call their packages `training` and `dnnlib`."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return run_python(command, cwd=cwd, env=environment)


@pytest.mark.parametrize(("upstream", "names"), [("edm", EDM), ("edm2", EDM2)])
def test_outputs_and_tensors_are_bit_equal_with_upstreams_pickle_load(checkout, snapshots, upstream, names):
    files = [snapshots(upstream) / f"{name}.pkl" for name in names]
    result = run(HERE / "compare_snapshots.py", *files, checkout=checkout(upstream))
    assert result.returncode == 0, result.stderr
    for name, found in json.loads(result.stdout).items():
        for claim in ("state", "outputs", "fp32", "settings", "source", "trusted info", "described"):
            assert found[claim], (name, claim)
        assert found["override"] and found["no override"], name
        assert not found["another network"], name  # the comparison can fail
        assert LOCAL[upstream] in found["local sources"] and None not in found["local sources"]
        assert found["refusals"] == []
    assert next(iter(json.loads(result.stdout).values()))["ran"] == []


# Prints a JSON list: what loading FILE with the checkout ROOT gives, for each pair of arguments.
LOAD = """
import sys, pathlib, json, click
from ddo_plugin.snapshots.pickles import network

def load(root, file):
    for name in [name for name in sys.modules if name.split(".")[0] in ("training", "torch_utils", "dnnlib")]:
        del sys.modules[name]
    sys.path[0] = root
    try:
        loaded = network.load(pathlib.Path(file), trust=root.endswith("trusted"))
        return f"{type(loaded.module).__name__}, source matches: {loaded.source_matches}"
    except click.ClickException as error:
        assert error.exit_code == 2
        return error.message

print(json.dumps([load(root, file) for root, file in zip(sys.argv[1::2], sys.argv[2::2])]))
"""


def load(*pairs, cwd=None) -> list[str]:
    result = run("-c", LOAD, *[argument for pair in pairs for argument in pair], checkout=pairs[0][0], cwd=cwd)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


TAMPERED = {
    "gadget": "model_type is weight_init",
    "bomb": "much larger network than the file holds",
    "endless": "much larger network than the file holds",
    "setting": "sigma_data is 0.7 in the file, 0.5 in the checkout",
}


def test_a_snapshot_that_no_honest_constructor_wrote_is_refused(checkout, snapshots):
    pairs = [(checkout("edm"), snapshots("edm") / f"tampered-{name}.pkl") for name in TAMPERED]
    for words, message in zip(TAMPERED.values(), load(*pairs), strict=True):
        assert words in message


def test_embedded_source_is_not_run_unless_it_is_trusted(checkout, snapshots, tmp_path):
    path, mark = snapshots("edm") / "tampered-source.pkl", tmp_path / "pwned"
    assert load((checkout("edm"), path), cwd=tmp_path) == ["EDMPrecond, source matches: False"]
    assert not mark.exists()
    (tmp_path / "trusted").symlink_to(checkout("edm"))
    assert load((tmp_path / "trusted", path), cwd=tmp_path)[0].startswith("EDMPrecond")
    assert mark.exists()


# Done at the end of the constructor of SongUNet in a copy of the checkout, and what it is refused with.
EDITS = {
    "self.more = torch.nn.Linear(1, 1)": "only the checkout's class has the part model.more",
    "self.register_buffer('more', torch.zeros(1))": "Missing key(s) in state_dict",
    "self.map_label = None": "only the file has the part model.map_label",
    "self.map_layer0.weight = torch.nn.Parameter(torch.zeros(1, 1))": "size mismatch",
    "self.map_layer0 = torch.nn.Identity()": "model.map_layer0 is a Linear in the file, a Identity in the checkout",
    "self.map_layer0.in_features = 7": "model.map_layer0.in_features is 32 in the file, 7 in the checkout",
    "pass": "EDMPrecond, source matches: False",
}


def edited(root: Path, copy: Path, line: str) -> Path:
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".git", "docs"))
    with (copy / "training" / "networks.py").open("a") as file:
        file.write(
            f"\n_original = SongUNet.__init__\n\n\ndef _edited(self, *args, **kwargs):\n"
            f"    _original(self, *args, **kwargs)\n    {line}\n\n\nSongUNet.__init__ = _edited\n"
        )
    return copy


def test_a_local_class_that_differs_is_refused_by_what_differs(checkout, snapshots, tmp_path):
    path = snapshots("edm") / "edm-song.pkl"
    copies = [edited(checkout("edm"), tmp_path / str(number), line) for number, line in enumerate(EDITS)]
    for words, message in zip(EDITS.values(), load(*((copy, path) for copy in copies)), strict=True):
        assert words in message


def test_the_other_upstreams_checkout_is_refused_in_one_line(checkout, snapshots):
    (message,) = load((checkout("edm"), snapshots("edm2") / "rgb.pkl"))
    assert "building its network needs training.networks_edm2 of its upstream" in message


def test_inspect_needs_no_checkout_and_describes_a_snapshot(snapshots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["inspect", str(snapshots("edm") / "edm-song.pkl")])
    assert result.exit_code == 0
    assert "EDMPrecond of a SongUNet" in result.output
    assert "16×16, 3 channels, 10 classes, 9 augment labels" in result.output
    assert "torch_utils.persistence._reconstruct_persistent_obj\n" in result.output
    assert "It can be loaded without running its code." in result.output
    assert not any(name.startswith("training") for name in sys.modules)


def inspect(file: Path, root: Path, cwd: Path, *options: str) -> subprocess.CompletedProcess:
    """By a process of its own, for it imports the checkout's classes."""
    return run("-m", "ddo_plugin", "inspect", file, f"--checkout={root}", *options, checkout="", cwd=cwd)


def test_inspect_names_the_module_that_the_source_came_from(checkout, snapshots, tmp_path):
    root, tampered = checkout("edm"), snapshots("edm") / "tampered-source.pkl"
    honest = inspect(snapshots("edm") / "edm-song.pkl", root, tmp_path)
    assert "same as training/networks.py" in honest.stdout
    assert "The checkout loads it without running its code." in honest.stdout
    assert honest.returncode == 0
    assert "unlike any module of this checkout" in inspect(tampered, root, tmp_path).stdout
    assert "open('pwned', 'w')" in inspect(tampered, root, tmp_path, "--source").stdout
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["gadget", "setting"])
def test_inspect_says_what_the_checkout_named_does_not_take(checkout, snapshots, name, tmp_path):
    found = inspect(snapshots("edm") / f"tampered-{name}.pkl", checkout("edm"), tmp_path)
    assert TAMPERED[name] in found.stdout
    assert (found.returncode, found.stderr) == (1, "")


def test_inspect_tells_the_checkout_of_another_upstream_and_imports_nothing_unasked(checkout, snapshots, monkeypatch):
    monkeypatch.chdir(checkout("edm"))
    result = CliRunner().invoke(main, ["inspect", str(snapshots("edm2") / "rgb.pkl")])
    assert result.exit_code == 1
    assert "It cannot be loaded here: its network is a Precond of training.networks_edm2" in result.output
    assert CliRunner().invoke(main, ["inspect", str(snapshots("edm") / "tampered-setting.pkl")]).exit_code == 0
    assert not any(name.startswith("training") for name in sys.modules)


def test_inspect_describes_an_edm2_snapshot(snapshots):
    result = CliRunner().invoke(main, ["inspect", str(snapshots("edm2") / "latent.pkl")])
    assert result.exit_code == 0
    for words in ("Precond of a UNet", "unconditional", "float16", "EDM2Loss(P_mean=-0.8, P_std=1.6)", "vae_name="):
        assert words in result.output
