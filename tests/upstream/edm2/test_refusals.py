"""What `train_edm2.py --ddo` refuses, in one line, with status 2, before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

DURATION = "1024"  # what a round that is not refused would take


def test_bad_inputs_that_every_upstream_refuses(bad_input, attempt) -> None:
    flags, replaced, message = bad_input
    assert message in attempt(*flags, **replaced)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--channels=64", "--channels=64, but the reference has 8; drop --channels"),
        ("--preset=edm2-img512-s", "--preset=edm2-img512-s is for other data than the reference"),
        ("--duration=1000", "--duration=1000 must be a multiple of 128, for example 896 or 1024"),
        ("--snapshot=1536", "--snapshot=1536 must be a multiple of 1024, for example 1024 or 2048"),
        ("--batch=96", "--status=1024 must be a multiple of 96, for example 960 or 1056"),
        ("--snapshot=2048", "--duration=1024 ends before the first snapshot at 2048 images"),
        ("--batch=0", "--batch=0: the number of images must be at least 1"),
        ("--batch=-128", "--batch=-128: the number of images must be at least 1"),
        ("--batch-gpu=-2", "--batch-gpu=-2: the number of images must be at least 1"),
        ("--batch-gpu=48", "--batch=128 cannot be split over 1 ranks in parts of --batch-gpu=48"),
    ],
)
def test_flags_that_contradict(flag: str, message: str, attempt) -> None:
    flags = ["--duration=960", flag] if flag == "--batch=96" else [flag]
    assert message in attempt(*flags)


def test_data_of_another_resolution(attempt, images, tmp_path) -> None:
    data = images(tmp_path / "large.zip", side=16, channels=3)
    assert "has (3, 16, 3) channels, resolution and classes" in attempt(f"--data={data}")


def test_latents_for_a_reference_of_pixels(attempt, tmp_path) -> None:
    folder = tmp_path / "latents"
    folder.mkdir()
    for number in range(3):
        np.save(folder / f"{number}.npy", np.ones((8, 8, 8), np.float32))
    (folder / "dataset.json").write_text(json.dumps({"labels": [[f"{number}.npy", number] for number in range(3)]}))
    assert "has (8, 8, 3) channels, resolution and classes, but" in attempt(f"--data={folder}")


@pytest.mark.usefixtures("own_interpreters")
def test_fakes_of_another_resolution(attempt, images, tmp_path) -> None:
    fakes = images(tmp_path / "large-fakes.zip", side=16, channels=3)
    assert "images are (3, 16, 16)" in attempt(ddo_fakes=fakes)


def test_fakes_of_another_reference_if_strict(attempt, world, tmp_path) -> None:
    fakes = tmp_path / "others"
    shutil.copytree(world.fakes, fakes)
    manifest = json.loads((fakes / "manifest.json").read_text())
    manifest["reference"]["sha256"] = "0" * 64
    (fakes / "manifest.json").write_text(json.dumps(manifest))
    assert "SHA-256 000000000000…" in attempt("--ddo-strict", ddo_fakes=fakes)


@pytest.mark.parametrize(
    ("widths", "why"),
    [("0.05,wide", "is not a list of numbers"), ("0.05,0.0501", "two numbers agree to three digits")],
)
def test_widths_of_averages_that_are_none(widths: str, why: str, world, tmp_path) -> None:
    process = world.finetune(f"--ddo-ema={widths}", f"--outdir={tmp_path / 'out'}")
    assert process.returncode == 2
    assert why in process.stderr


def test_a_folder_that_holds_the_states_of_a_run_without_ddo(refused, world) -> None:
    before = sorted(path.name for path in (world.root / "base").iterdir())
    line = refused(world.finetune(f"--outdir={world.root / 'base'}", "--duration=4096"))
    assert "is not a training state of a DDO run" in line
    assert sorted(path.name for path in (world.root / "base").iterdir()) == before


@pytest.mark.parametrize(
    ("reference", "message"),
    [("trained", "belongs to a round with another reference"), ("base", "this round is finished")],
)
def test_a_folder_of_another_or_a_finished_round(reference: str, message: str, round_folder, refused, world) -> None:
    ddo = world.root / "base/network-snapshot-0000002-0.050.pkl" if reference == "trained" else world.base
    assert message in refused(world.finetune(f"--ddo={ddo}", f"--outdir={round_folder}", "--duration=1024"))


@pytest.fixture(scope="module")
def round_folder(world, completed) -> Path:
    out = world.root / "finished"
    completed(world.finetune(f"--outdir={out}", "--duration=1024"))
    return out


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--lr=1e-3", "belongs to a round with --lr=5e-05, not 0.001"),
        ("--seed=1", "--seed=0, not 1"),
        ("--P_mean=-1", "--P_mean=-0.8, not -1.0"),
        ("--batch=64", "--batch=128, not 64"),
    ],
)
def test_a_round_goes_on_with_the_settings_that_it_began_with(flag, message, round_folder, refused, world) -> None:
    assert message in refused(world.finetune(f"--outdir={round_folder}", "--duration=2048", flag))


def test_a_round_goes_on_with_as_many_images_as_it_began_with(round_folder, refused, world, images, tmp_path) -> None:
    images(tmp_path / "few.zip", channels=3, count=48)
    flags = [f"--outdir={round_folder}", "--duration=2048", f"--data={tmp_path / 'few.zip'}"]
    assert "belongs to a round with images in --data=96, not 48" in refused(world.finetune(*flags))


def test_a_finished_round_names_the_duration_that_it_has_not_yet(round_folder, refused, world) -> None:
    shorter = ["--duration=512", "--snapshot=0"]
    assert "or a --duration above 1024" in refused(world.finetune(f"--outdir={round_folder}", *shorter))


def test_a_finished_round_is_left_as_it_is_by_the_command_that_goes_on(round_folder, world, completed) -> None:
    before = {path: path.stat() for path in round_folder.iterdir()}
    done = world.finetune(f"--outdir={round_folder}", "--ddo-continue", f"--duration={DURATION}")
    completed(done)
    assert "this round is finished; nothing to do" in done.stderr + done.stdout
    assert {path: path.stat() for path in round_folder.iterdir()} == before
