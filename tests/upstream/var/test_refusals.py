"""What cannot work is refused in one line, before VAR writes anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from ddo_plugin.sampling.refsets import format as refset
from tests.processes import run_python
from tests.upstream.var.conftest import OWN

TOKENS = 14


@pytest.fixture
def attempt(world, refused, tmp_path: Path):
    """Start a round with these flags; returns the line that refuses it."""

    def start(*flags: object, ddo: object = None) -> str:
        out = tmp_path / "out"
        line = refused(world.train(f"--ddo={ddo or world.base}", f"--local_out_dir_path={out}", *flags))
        assert not out.exists()
        return line

    return start


def fakes(
    path: Path, tokens: int = TOKENS, classes: int = 3, labelled: bool = True, highest: int = 0, **sampler: object
) -> Path:
    drawn = np.full((classes, tokens), highest, dtype=np.int16)
    numbers = np.arange(classes) if labelled else None
    origin = {"reference": {"source": "x", "sha256": "0" * 64}, "sampler": sampler, "seed": 0}
    refset.write(path, drawn, numbers, kind="tokens", **origin)
    return path


def elsewhere(world, folder: Path) -> subprocess.CompletedProcess[str]:
    """A round that is started in this folder."""
    command = world.train_command(f"--ddo={world.base}", f"--local_out_dir_path={folder / 'out'}")
    env = world.environment(DNNLIB_CACHE_DIR=str(world.base))  # no folder, so nothing can be fetched into it
    return run_python(command, cwd=folder, env=env)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ddo_alpha=-1", "x>=0"),
        ("--ddo_beta=0", "x>0"),
        ("--ddo_beta=tiny", "'tiny' is not a valid float"),
        ("--ddo_iters=1", "x>=2"),
        ("--ddo_save=0", "x>=1"),
        ("--ddo_fakes_from=images", "'images' is not one of 'pixels', 'tokens'"),
        ("--ddo_fakes_cfg=-1", "x>=0"),
        ("--ddo_fakes_precision=bf16", "'bf16' is not one of 'fp32', 'amp'"),
        ("--ddo_schedule=step", "'step' is not one of 'epoch', 'round'"),
        ("--ddo-bet=3", "--ddo-bet: no such option; did you mean --ddo_beta?"),
        ("-ddo_alpha=3", "-ddo_alpha: no such option; did you mean --ddo_alpha?"),
        ("--ddo_alhpa=3", "did you mean --ddo_alpha?"),
        ("--ddo_compile", "--ddo-compile is for EDM and EDM2; use --tfast"),
        ("--ddo_objective=gan", "available are ddo, mle"),
        ("--ls=0.1", "label smoothing"),
        ("--pg=0.5", "drop --pg"),
        ("--ep=3", "--ddo_iters"),
        ("--depth=3", "set --depth=2"),
        ("--saln=1", "set --saln=0"),
        ("--anorm=0", "set --anorm=1"),
        ("--pn=1_2_4", "has 1_2_3; set --pn=1_2_3"),
        ("--pn=small", "not a list of sides such as 1_2_3"),
        ("--pn=512", "has 1_2_3; set --pn=1_2_3"),
        ("--bs=9", "use a multiple of 2"),
        ("--bs=0", "--bs=0 must be at least 1"),
        ("--ac=0", "--ac=0 must be at least 1"),
        ("--ac=-1", "--ac=-1 must be at least 1"),
        ("--tblr=nan", "--tblr=nan is not a finite number"),
        ("--sche=foo", "--sche=foo: unknown schedule; use cos"),
        ("--bs=1", "use a multiple of 2"),
        ("--data_path=/nowhere", "/nowhere has no folder train"),
        ("--ddo_fakes=/nowhere", "no such reference set"),
        ("--ddo_sha256=" + "0" * 64, "expected 0000"),
    ],
)
def test_a_flag_that_cannot_work(flag: str, message: str, attempt) -> None:
    assert message in attempt(flag)


def test_options_without_ddo(world, refused) -> None:
    assert "--ddo-alpha: no effect without --ddo" in refused(world.train("--ddo_alpha=3"))


def test_a_missing_file(attempt, tmp_path) -> None:
    assert "no such file" in attempt(ddo=tmp_path / "nothing.pth")


def test_a_file_for_an_output_folder(world, refused) -> None:
    line = refused(world.train(f"--ddo={world.base}", f"--local_out_dir_path={world.base}"))
    assert "is a file, but a round writes to a folder" in line


def test_a_truncated_file(attempt, world, tmp_path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(world.base.read_bytes()[:-1000])
    assert "or download it again" in attempt(ddo=path)


def test_a_file_that_is_a_program(attempt, tmp_path) -> None:
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"class_emb.weight": Attack()}, tmp_path / "attack.pth")
    assert "cannot be read as a file of tensors" in attempt(ddo=tmp_path / "attack.pth")
    assert not (tmp_path / "ran").exists()


def test_a_native_checkpoint_names_the_command_that_mends_it(attempt, world, completed) -> None:
    native = world.root / "native/ar-ckpt-last.pth"
    completed(world.train_pristine("--local_out_dir_path=native"))
    assert f"`ddo convert {native} " in attempt(ddo=native)


def test_a_file_of_other_tensors(attempt, world) -> None:
    assert "holds no network of VAR" in attempt(ddo=world.root / "vae_ch160v4096z32.pth")


def test_weights_under_names_of_a_wrapper_name_the_command_that_mends_them(attempt, world, tmp_path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in torch.load(world.base).items()}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    assert "`ddo convert" in attempt(ddo=tmp_path / "wrapped.pth")


@pytest.mark.parametrize("junk", [None, b"junk\n", b""])
def test_a_tokenizer_that_is_none_or_was_cut_short(junk: bytes | None, world, refused, tmp_path) -> None:
    cut = (world.root / "vae_ch160v4096z32.pth").read_bytes()[:-1000]
    (tmp_path / "vae_ch160v4096z32.pth").write_bytes(cut if junk is None else junk)
    line = refused(elsewhere(world, tmp_path))
    assert "image tokenizer=vae_ch160v4096z32.pth cannot be read" in line
    assert not (tmp_path / "out").exists()


def test_fakes_of_tokens_that_the_reference_does_not_know(attempt, tmp_path) -> None:
    source = fakes(tmp_path / "fakes", highest=5000)
    assert "vocabulary of 4096" in attempt(f"--ddo_fakes={source}")


def test_an_output_folder_whose_name_is_a_pattern(world, refused, tmp_path) -> None:
    """Upstream's resume takes it for one and would start over."""
    out = tmp_path / "a[x]"
    assert "a folder with *, ? or [" in refused(world.train(f"--ddo={world.base}", f"--local_out_dir_path={out}"))
    assert not out.exists()


def test_fakes_of_another_layout(attempt, tmp_path) -> None:
    assert "the reference's are 14 tokens" in attempt(f"--ddo_fakes={fakes(tmp_path / 'fakes', tokens=9)}")


@pytest.mark.usefixtures("own_interpreters")
def test_fakes_without_labels(attempt, tmp_path) -> None:
    assert "has 0 classes" in attempt(f"--ddo_fakes={fakes(tmp_path / 'fakes', labelled=False)}")


def test_fakes_of_another_reference_if_strict(attempt, tmp_path) -> None:
    assert "SHA-256 000000000000…" in attempt(f"--ddo_fakes={fakes(tmp_path / 'fakes')}", "--ddo_strict")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ddo_fakes_cfg=1.5", "was sampled with 1; make another set with --cfg=1.5"),
        ("--ddo_fakes_from=pixels", "holds fakes from tokens; make another set with --through-pixels"),
        ("--ddo_fakes_precision=amp", "has no effect on the fakes in"),
    ],
)
def test_a_set_of_fakes_that_was_made_otherwise(flag: str, message: str, attempt, tmp_path) -> None:
    assert message in attempt(f"--ddo_fakes={fakes(tmp_path / 'fakes', cfg=1)}", flag)


def test_a_set_through_pixels_for_a_round_of_drawn_tokens(attempt, tmp_path) -> None:
    source = fakes(tmp_path / "fakes", through_pixels=True)
    line = attempt(f"--ddo_fakes={source}", "--ddo_fakes_from=tokens")
    assert "holds fakes from pixels; make another set without --through-pixels" in line


PLUGIN = """
from ddo_plugin import hookimpl

class Same:
    shape, classes, description = (14,), 3, {}

@hookimpl(tryfirst=True)
def ddo_fakes(source):
    return Same() if source == "mine" else None
"""


@pytest.mark.parametrize("flag", ["--ddo_fakes_from=pixels", "--ddo_fakes_cfg=1.5", "--ddo_fakes_precision=amp"])
def test_options_of_sampling_with_the_fakes_of_a_plugin(flag: str, world, refused, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    about = tmp_path / "mine-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ddo_plugin]\nmine = mine\n")
    flags = [f"--ddo={world.base}", "--ddo_fakes=mine", flag, f"--local_out_dir_path={tmp_path / 'out'}"]
    path = f"{tmp_path}:{world.variables['PYTHONPATH']}"
    process = world.python(*world.train_command(*flags), PYTHONPATH=path)
    assert f"{flag} has no effect on fakes that a plugin provides; drop it" in refused(process)


def test_data_of_other_classes_than_the_reference(attempt, world, tmp_path) -> None:
    shutil.copytree(world.data, tmp_path / "images")
    (tmp_path / "images/train/3").mkdir()
    line = attempt(f"--data_path={tmp_path / 'images'}", ddo=world.root / OWN)
    assert f"{tmp_path / 'images/train'} has 4 classes (folders), but --ddo={world.root / OWN} has 3" in line
    (tmp_path / "images/train/3").rmdir()
    (tmp_path / "images/val/3").mkdir()
    line = attempt(f"--data_path={tmp_path / 'images'}", ddo=world.root / OWN)
    assert f"{tmp_path / 'images/val'} has 4 classes (folders)" in line
    (tmp_path / "images/val/3").rmdir()
    (tmp_path / "images/train/2").rename(tmp_path / "images/elsewhere")
    assert "has 2 classes (folders)" in attempt(f"--data_path={tmp_path / 'images'}", ddo=world.root / OWN)


def test_a_data_folder_without_validation_images(attempt, world, tmp_path) -> None:
    shutil.copytree(world.data / "train", tmp_path / "images/train")
    assert "has no folder val" in attempt(f"--data_path={tmp_path / 'images'}")


def test_a_folder_with_a_checkpoint_of_a_pretraining(world, refused, completed) -> None:
    """Upstream would silently go on from it, and the target would not be the reference."""
    out = world.root / "leftover"
    completed(world.train_pristine("--local_out_dir_path=leftover"))
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    line = refused(world.train(f"--ddo={world.base}", f"--local_out_dir_path={out}"))
    assert "is not a training state of a DDO run" in line
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_missing_tokenizer_that_cannot_be_fetched(world, refused, tmp_path) -> None:
    """Upstream would call wget, not look at how it ended, and stop at a file that is not there."""
    line = refused(elsewhere(world, tmp_path))
    assert "vae_ch160v4096z32.pth is not in" in line
    assert not (tmp_path / "out").exists()
