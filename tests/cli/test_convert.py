"""`ddo convert` on files in the manner of VAR's; on real ones: tests/upstream/var/test_convert.py."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ddo_plugin.cli import main
from tests.processes import run_python


def network(depth: int = 2, width: int = 4) -> dict[str, torch.Tensor]:
    names = ["class_emb.weight", "word_embed.weight", "pos_1LC", "head.weight", "lvl_1L"]
    blocks = [f"blocks.{number}.ffn.fc1.weight" for number in range(depth)]
    return {name: torch.randn(3, width) for name in names + blocks}


def native(weights: dict[str, torch.Tensor], **trainer: object) -> dict[str, object]:
    """What upstream's trainer writes after its third epoch."""
    optimizer = {"state": {0: {"step": torch.tensor(9.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    config = {"patch_nums": (1, 2), "prog_it": 9, "last_prog_si": 1, "first_prog": False}
    parts = {"vae_local": {"w": torch.ones(2)}, "var_opt": {"optimizer": optimizer}, "config": config}
    return {"epoch": 3, "iter": 5, "trainer": {"var_wo_ddp": weights, **parts, **trainer}, "args": {"depth": 2}}


@pytest.fixture
def convert(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["convert", *map(str, arguments)])


@pytest.fixture
def refused(convert, tmp_path):
    """A function like `convert`: the line that refuses, after which the folder is as it was."""

    def refuse(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = convert(*arguments)
        assert result.exit_code == 2, result.output
        assert sorted(tmp_path.rglob("*")) == before
        assert result.output.count("\n") == 1
        return result.output

    return refuse


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_checkpoint_becomes_plain_weights(convert):
    weights = network()
    torch.save(native(weights), "ar-ckpt-last.pth")
    result = convert("ar-ckpt-last.pth", "out/var_d2.pth")
    assert "out/var_d2.pth: a VAR of depth 2" in result.output
    assert equal(torch.load("out/var_d2.pth"), weights)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_names_lose_what_wrappers_put_before_them(prefix, convert):
    weights = network()
    wrapped = {prefix + name: tensor for name, tensor in weights.items()}
    for stored in (wrapped, native(wrapped)):
        torch.save(stored, "wrapped.pth")
        assert convert("wrapped.pth", "var.pth").exit_code == 0
        assert equal(torch.load("var.pth"), weights)
        Path("var.pth").unlink()


def test_weights_become_a_training_checkpoint_that_begins_anew(convert):
    weights, other = network(), network()
    torch.save(weights, "var.pth")
    torch.save(native(other), "like.pth")
    result = convert("var.pth", "ar-ckpt-new.pth", "--like=like.pth")
    assert "at epoch 0 with an empty optimizer state" in result.output
    made, like = torch.load("ar-ckpt-new.pth"), native(other)
    assert (made["epoch"], made["iter"], made["args"]) == (0, 0, like["args"])
    assert equal(made["trainer"].pop("var_wo_ddp"), weights)
    assert torch.equal(made["trainer"]["vae_local"]["w"], torch.ones(2))
    groups = like["trainer"]["var_opt"]["optimizer"]["param_groups"]
    assert made["trainer"]["var_opt"] == {"optimizer": {"state": {}, "param_groups": groups}}
    config = {"patch_nums": (1, 2), "prog_it": 0, "last_prog_si": -1, "first_prog": True}
    assert made["trainer"]["config"] == config


def test_there_and_back_the_network_is_the_same(convert):
    weights = network()
    torch.save(native(weights), "ar-ckpt-last.pth")
    assert convert("ar-ckpt-last.pth", "var.pth").exit_code == 0
    assert convert("var.pth", "ar-ckpt-again.pth", "--like=ar-ckpt-last.pth").exit_code == 0
    assert convert("ar-ckpt-again.pth", "again.pth").exit_code == 0
    assert equal(torch.load("again.pth"), weights)


def test_what_exists_is_not_overwritten(refused):
    torch.save(native(network()), "ar-ckpt-last.pth")
    assert "ar-ckpt-last.pth already exists" in refused("ar-ckpt-last.pth", "ar-ckpt-last.pth")
    Path("link.pth").symlink_to("nowhere")
    assert "link.pth already exists" in refused("ar-ckpt-last.pth", "link.pth")


def test_a_file_that_appears_during_the_work_is_not_overwritten(convert, monkeypatch):
    torch.save(native(network()), "ar-ckpt-last.pth")
    save = torch.save

    def save_late(state, file):
        save(state, file)
        Path("out.pth").write_text("mine")

    monkeypatch.setattr(torch, "save", save_late)
    result = convert("ar-ckpt-last.pth", "out.pth")
    assert (result.exit_code, "out.pth already exists" in result.output) == (2, True)
    assert Path("out.pth").read_text() == "mine"
    assert sorted(path.name for path in Path().iterdir()) == ["ar-ckpt-last.pth", "out.pth"]


SMALL_DISK = """
import resource, sys
from ddo_plugin.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
main(sys.argv[1:])
"""


def test_a_full_disk_is_told_in_one_line(tmp_path):
    torch.save(native(network(width=4000)), tmp_path / "last.pth")
    done = run_python(["-c", SMALL_DISK, "convert", "last.pth", "out.pth"], cwd=tmp_path)
    told = "Error: out.pth cannot be written (File too large); check the permissions and the free disk space, "
    told += "or choose another place\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


@pytest.mark.parametrize("write", [1, 2, 5, 20])
def test_ctrl_c_leaves_nothing(convert, monkeypatch, write):
    torch.save(native(network()), "last.pth")
    save = torch.save

    class Interrupted:
        def __init__(self, file):
            self.file, self.left = file, write

        def write(self, data):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(torch, "save", lambda state, file: save(state, Interrupted(file)))
    result = convert("last.pth", "out.pth")
    assert (result.exit_code, result.output.strip()) == (1, "Aborted!")
    assert [path.name for path in Path().iterdir()] == ["last.pth"]


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("var_d16.pth", "the name means depth 16 to upstream, but the network has 2 blocks"),
        ("ar-ckpt-plain.pth", "upstream's trainer would resume from this name"),
    ],
)
def test_a_name_that_upstream_would_misread_is_refused(out, told, refused):
    torch.save(native(network()), "last.pth")
    assert told in refused("last.pth", out)


def test_plain_weights_need_a_checkpoint_to_become_one(refused):
    torch.save(network(), "var.pth")
    assert "plain weights already; to write a training checkpoint, add --like" in refused("var.pth", "out.pth")


@pytest.mark.parametrize(
    ("like", "told"),
    [
        (native(network(depth=3)), "has depth 2, but --like=like.pth has 3"),
        (native(network(width=5)), "different networks: blocks.0.ffn.fc1.weight is (3, 4) and (3, 5)"),
        (network(), "is not a training checkpoint of unmodified VAR"),
        ({"trainer": {"var_wo_ddp": network()}}, "is not a training checkpoint of unmodified VAR"),
    ],
)
def test_the_rest_of_another_network_is_refused(like, told, refused):
    torch.save(network(), "var.pth")
    torch.save(like, "like.pth")
    assert told in refused("var.pth", "out.pth", "--like=like.pth")


@pytest.mark.parametrize("stored", [{"net": torch.zeros(2)}, torch.zeros(2), {"trainer": {"var_wo_ddp": {"a": 1}}}])
def test_other_files_of_tensors_are_nobodys(stored, refused):
    torch.save(stored, "state.pth")
    assert "no installed plugin converts such a file" in refused("state.pth", "out.pth")


def test_other_files_are_nobodys(refused, tmp_path):
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"ema": 1}))
    assert "`ddo inspect net.pkl` describes it" in refused("net.pkl", "out.pth")


def test_a_damaged_file_is_told(refused, tmp_path):
    torch.save(native(network()), "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-900])
    assert "cannot be read as a file of tensors" in refused("cut.pth", "out.pth")


def test_nothing_of_a_file_is_run(refused, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    torch.save(native(network()) | {"args": Evil()}, "evil.pth")
    assert "cannot be read as a file of tensors" in refused("evil.pth", "out.pth")
    assert not (tmp_path / "pwned").exists()


def test_a_folder_that_cannot_be_written_is_told(refused, tmp_path):
    (tmp_path / "file").touch()
    torch.save(native(network()), "last.pth")
    assert "file/var.pth cannot be written" in refused("last.pth", "file/var.pth")
