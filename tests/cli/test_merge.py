"""`ddo merge` on the demo's networks; on real ones: tests/upstream/*/test_merge.py."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddo_plugin.base.files import sha256_file
from ddo_plugin.cli import main
from ddo_plugin.snapshots import sidecar
from tests.processes import run_python

A, B = "base.safetensors", "network-000300.safetensors"


def write(name: str, family: str = "diffusion", seed: int = 0, width: int = 4) -> None:
    torch.manual_seed(seed)
    save_file({"weight": torch.randn(width), "steps": torch.arange(3) + seed}, name, metadata={"family": family})


@pytest.fixture
def merge(tmp_path, monkeypatch):
    """A function: arguments after `ddo merge A B` -> the result. The current folder holds A and B."""
    monkeypatch.chdir(tmp_path)
    write(A)
    write(B, seed=1)
    return lambda *arguments, a=A, b=B: CliRunner().invoke(main, ["merge", a, b, "--upstream=digits", *arguments])


@pytest.fixture
def refused(merge, tmp_path):
    """A function like `merge`: the line that refuses, after which the folder is as it was."""

    def refuse(*arguments: str, **names: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = merge(*arguments, **names)
        assert result.exit_code == 2, result.output
        assert sorted(tmp_path.rglob("*")) == before
        assert "Traceback" not in result.output
        return result.output.splitlines()[-1]

    return refuse


def test_several_w_are_written_to_a_folder(merge):
    result = merge("--w=0,0.5,1,1.5,-1", "--outdir=merged/here")
    assert result.exit_code == 0, result.output
    a, b = load_file(A), load_file(B)
    for text in ("0", "0.5", "1", "1.5", "-1"):
        path = Path(f"merged/here/network-000300-w{text}.safetensors")
        expected = (a["weight"].double() + float(text) * (b["weight"].double() - a["weight"].double())).float()
        assert torch.allclose(load_file(path)["weight"], expected, rtol=1e-6)
        assert safe_open(path, "pt").metadata() == {"family": "diffusion"}
    assert load_file("merged/here/network-000300-w1.safetensors")["weight"].equal(b["weight"])
    assert load_file("merged/here/network-000300-w1.5.safetensors")["steps"].equal(a["steps"])
    assert len(list(Path("merged/here").iterdir())) == 10


def test_the_sidecar_names_both_parents_and_w(merge):
    Path(f"{B}.ddo.json").write_text(json.dumps({"snapshot": B, "step": 300, "sha256": sha256_file(Path(B))}))
    assert merge("--w=1.5", "--out=new.safetensors").exit_code == 0
    told = json.loads(Path("new.safetensors.ddo.json").read_text())
    parents = {key: {"source": name, "sha256": sha256_file(Path(name))} for key, name in (("a", A), ("b", B))}
    assert told["merge"] == {**parents, "w": 1.5}
    assert (told["snapshot"], told["step"], told["upstream"]) == ("new.safetensors", 300, "digits")
    assert told["sha256"] == sidecar.sha256(Path("new.safetensors")) == sha256_file(Path("new.safetensors"))
    assert "torch" in told["versions"]


def test_a_run_does_not_take_a_merged_network_in_its_folder_for_a_snapshot_of_its_own(merge, tmp_path):
    Path(f"{B}.ddo.json").write_text(json.dumps({"snapshot": B, "step": 300}))
    assert merge("--w=2", "--outdir=.").exit_code == 0
    assert [path.name for path in sidecar.snapshots(tmp_path)] == [B]
    assert sidecar.steps(tmp_path) == [300]


def test_the_same_command_leaves_what_it_finished_and_makes_the_rest(merge):
    arguments = ["--w=0.5,2", "--outdir=merged"]
    assert merge(*arguments).exit_code == 0
    kept, gone = (Path(f"merged/network-000300-w{w}.safetensors") for w in ("0.5", "2"))
    before = kept.stat()
    gone.unlink()  # as if the command had been killed before the second file had its name
    assert merge(*arguments).exit_code == 0
    assert gone.exists() and kept.stat() == before
    again = merge(*arguments)
    assert (again.exit_code, again.output.splitlines()[-1]) == (0, "the merged networks exist already")


def test_the_same_command_is_repeated_under_another_path_of_the_parents(merge, tmp_path):
    assert merge("--w=0.5", "--outdir=out").exit_code == 0
    result = merge("--w=0.5", "--outdir=out", a=str(tmp_path / A))
    assert result.exit_code == 0 and "exist already" in result.output


def test_a_file_that_is_not_the_result_of_this_command_is_not_overwritten(merge, refused):
    write("mine.safetensors")
    assert "mine.safetensors already exists" in refused("--w=0.5", "--out=mine.safetensors")
    assert merge("--w=0.5", "--out=new.safetensors").exit_code == 0
    assert "new.safetensors already exists" in refused("--w=2", "--out=new.safetensors")
    Path("new.safetensors").write_bytes(b"damaged")
    assert "new.safetensors already exists" in refused("--w=0.5", "--out=new.safetensors")
    Path("link.safetensors").symlink_to("nowhere")
    assert "link.safetensors already exists" in refused("--w=2", "--out=link.safetensors")


@pytest.mark.parametrize("out", [A, B, f"./{A}"])
def test_a_parent_is_not_overwritten(out, refused):
    assert "is one of the two networks" in refused("--w=0.5", f"--out={out}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--w=nan", "--outdir=new"], "'nan' is not a list of numbers"),
        (["--w=0.5,inf", "--outdir=new"], "'0.5,inf' is not a list of numbers"),
        (["--w=1e300", "--outdir=new"], "weight of the merged network is not finite in float32; choose w nearer"),
        (["--w=1,2", "--out=new.safetensors"], "is a single file, but --w has 2 numbers; use --outdir=DIR"),
        (["--w=1,1.0", "--outdir=new"], "contains a number twice"),
        (["--w=1"], "pass either --out=FILE, for a single W, or --outdir=DIR"),
        (["--w=1", "--out=new.safetensors", "--outdir=new"], "pass either --out=FILE"),
        (["--w=1", "--out=new.pkl"], "choose a name that ends in .safetensors"),
        (["--outdir=new"], "Missing option '--w'"),
        (["--w=1", "--outdir=base.safetensors/new"], "base.safetensors/new"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, told, refused):
    assert told in refused(*arguments)


def test_different_networks_are_refused(refused):
    write("wide.safetensors", width=5)
    write("tokens.safetensors", family="tokens")
    save_file({"weight": torch.tensor([1.0, torch.nan])}, "diverged.safetensors", metadata={"family": "diffusion"})
    told = refused("--w=1", "--outdir=new", b="wide.safetensors")
    assert "the networks have different architectures: weight is (4,) float32 and (5,) float32" in told
    assert "of the family 'diffusion', and tokens.safetensors of 'tokens'" in refused(
        "--w=1", "--outdir=new", b="tokens.safetensors"
    )
    assert "weight is not finite" in refused("--w=1", "--outdir=new", a="diverged.safetensors")


def test_damaged_and_missing_files_are_refused(refused):
    Path("cut.safetensors").write_bytes(Path(B).read_bytes()[:-5])
    assert "cut.safetensors is not a snapshot of the demo" in refused("--w=1", "--outdir=new", b="cut.safetensors")
    assert "none.safetensors: no such file" in refused("--w=1", "--outdir=new", a="none.safetensors")
    Path(f"{B}.ddo.json").write_text("{")
    assert f"{B}.ddo.json: cannot be read" in refused("--w=1", "--outdir=new")
    Path(f"{B}.ddo.json").write_text("[]")
    assert f"{B}.ddo.json: does not describe a snapshot" in refused("--w=1", "--outdir=new")


def test_the_upstream_must_be_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for own, told in ([], "--checkout=PATH, or --upstream=NAME"), (["--upstream=edm"], "--upstream=edm needs a"):
        result = CliRunner().invoke(main, ["merge", A, B, "--w=1", "--outdir=new", *own])
        assert (result.exit_code, told in result.output) == (2, True)


def test_code_of_a_url_is_not_run(refused):
    assert "--ddo-trust would run code from https://example.invalid/b.pkl" in refused(
        "--w=1", "--outdir=new", "--ddo-trust", b="https://example.invalid/b.pkl"
    )


def test_of_two_commands_for_one_file_the_first_writes_file_and_sidecar(merge, monkeypatch):
    write_sidecar = sidecar.write_merge

    def write_slowly(*arguments: object) -> None:
        write_sidecar(*arguments)
        time.sleep(0.3)

    monkeypatch.setattr(sidecar, "write_merge", write_slowly)
    children = []
    for w in ("0.5", "2"):
        if not (child := os.fork()):
            os._exit(merge(f"--w={w}", "--out=new.safetensors").exit_code)
        children.append(child)
    assert sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == [0, 2]
    assert sidecar.sha256(Path("new.safetensors")) == sha256_file(Path("new.safetensors"))
    assert sorted(path.name for path in Path().iterdir()) == [A, B, "new.safetensors", "new.safetensors.ddo.json"]


SMALL_DISK = """
import resource, sys
from ddo_plugin.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
main(sys.argv[1:])
"""


@pytest.mark.usefixtures("merge")
def test_a_full_disk_is_told_in_one_line(tmp_path):
    for name in (A, B):
        write(name, width=10_000)
    done = run_python(["-c", SMALL_DISK, "merge", A, B, "--upstream=digits", "--w=2", "--outdir=new"], cwd=tmp_path)
    out = "new/network-000300-w2.safetensors"
    remedy = "check the permissions and the free disk space, or choose another place"
    told = f"Error: {out} cannot be written (File too large); {remedy}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    assert sorted(path.name for path in tmp_path.iterdir()) == [A, B]


def test_a_merged_network_of_the_demo_is_sampled_inspected_and_trained(demo_data, tmp_path, monkeypatch):
    from ddo_integrations.demo.families import build, save_snapshot

    monkeypatch.chdir(tmp_path)
    family = build("diffusion", demo_data)
    for seed, name in enumerate((A, B)):
        torch.manual_seed(seed)
        save_snapshot(family.network(), "diffusion", Path(name))
    own = ["--upstream=digits", "--family=diffusion", f"--data={demo_data}"]
    network = "--network=merged.safetensors"
    train = ["-m", "ddo_integrations.demo.train", *own[1:], "--steps=2", "--batch=4", "--outdir=out"]
    for command in (
        ["-m", "ddo_plugin", "merge", A, B, "--w=0.5", "--out=merged.safetensors", "--upstream=digits"],
        ["-m", "ddo_plugin", "sample", *own, network, "--seeds=0-1", "--grid=grid.png"],
        ["-m", "ddo_plugin", "refset", "make", *own, network, "--count=8", "--out=fakes"],
        [*train, "--ddo=merged.safetensors", "--ddo-fakes=fakes"],
    ):
        done = run_python(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "tensors and no code" in CliRunner().invoke(main, ["inspect", "merged.safetensors"]).output
    described = sidecar.read(next(Path("out").glob("network-*.safetensors")))
    assert described["reference"]["sha256"] == sidecar.sha256(Path("merged.safetensors"))
