"""`ddo plan`"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ddo_plugin.cli import main

PAPER = ["edm-cifar10-cond", "edm-cifar10-uncond", "edm2-img64-s", "edm2-img512-l", "var-d16", "var-d30"]


@pytest.fixture
def ddo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDO_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return run


@pytest.mark.parametrize("recipe", PAPER)
@pytest.mark.parametrize("gpu", ["A100", "H200"])
def test_every_recipe_of_the_paper_has_a_plan_without_network_or_checkout(ddo, recipe: str, gpu: str) -> None:
    done = ddo("plan", recipe, "--gpu", gpu)
    assert done.exit_code == 0, done.output
    for word in ("GPU-hours", "trainings", "evaluations", "memory of a GPU", "disk", "counted"):
        assert word in done.output


def test_the_plan_follows_the_recipe(ddo) -> None:
    ddo("cp", "edm-cifar10-cond")
    whole = ddo("plan", "edm-cifar10-cond.toml").output
    short = ddo("plan", "edm-cifar10-cond.toml", "--set", "rounds=1", "--set", "sweep.alpha=[1]").output
    assert "20 trainings" in whole and "16 rounds and these:" in whole
    assert "4 trainings" in short and "1 round and these:" in short
    assert "16 rounds on 2 H100" in ddo("plan", "edm-cifar10-cond", "--gpu=h100", "--gpus=2").output


def test_rounds_that_cost_the_same_are_one_entry(ddo) -> None:
    assert ddo("plan", "edm2-img64-s").output.count("trainings") == 1
    ddo("cp", "edm2-img64-s")
    recipe = Path("edm2-img64-s.toml")
    recipe.write_text(recipe.read_text() + "\n[[change]]\nfrom_round = 3\nrefset = { steps = 16 }\n")
    output = ddo("plan", str(recipe)).output
    assert "rounds 1 to 2, each" in output and "rounds 3 to 24, each" in output


def test_a_network_that_does_not_fit_is_told_with_the_option_that_helps(ddo) -> None:
    output = ddo("plan", "edm2-img512-l", "--set", "training.batch-gpu=64").output
    assert "does not fit" in output and "16 fit with training.batch-gpu = 16" in output


def test_an_unknown_network_that_is_not_at_hand_is_refused_in_one_line(ddo) -> None:
    done = ddo("plan", "edm-cifar10-cond", "--set", 'start="mine.pkl"')
    assert done.exit_code == 2
    assert "mine.pkl: not on this machine" in done.output and "Traceback" not in done.output


def test_an_upstream_without_figures_is_refused_in_one_line(ddo) -> None:
    ddo("cp", "digits")
    Path("base.net").touch()
    done = ddo("plan", "digits.toml", "--set", 'start="base.net"')
    assert done.exit_code == 2
    assert "the integration of 'digits' does not count networks" in done.output


@pytest.mark.parametrize(
    "change, words",
    [
        ('evaluation.sampler="--steps=abc"', "steps = 'abc' is not a number"),
        ('evaluation.sampler="--x=\'"', "no closing quotation"),
        ("training.duration=inf", "duration = inf is not a number"),
        ("training.batch=0", "cannot be divided among 8 GPUs"),
        ("training.batch=513", "cannot be divided among 8 GPUs"),
        ("training.batch-gpu=7", "does not divide the 64 images"),
    ],
)
def test_settings_that_cannot_be_planned_are_refused_in_one_line(ddo, change: str, words: str) -> None:
    done = ddo("plan", "edm-cifar10-cond", "--set", change)
    assert done.exit_code == 2, done.output
    assert words in done.output and "Traceback" not in done.output


def test_memory_is_that_of_the_round_that_needs_most(ddo) -> None:
    ddo("cp", "edm2-img512-l")
    recipe = Path("edm2-img512-l.toml")
    recipe.write_text(recipe.read_text() + "\n[[change]]\nfrom_round = 25\ntraining = { batch-gpu = 64 }\n")
    assert "16 fit with training.batch-gpu = 16" in ddo("plan", str(recipe)).output


def test_a_pass_that_fits_is_never_called_too_large(ddo) -> None:
    line = next(line for line in ddo("plan", "var-d16", "--gpus=3").output.splitlines() if line.startswith("memory"))
    assert "with 42 real images" in line and "does not fit" not in line


def test_an_unclear_number_of_processes_asks_for_gpus(ddo) -> None:
    unclear = 'launch.torchrun="--nproc_per_node=gpu"'
    assert ddo("plan", "edm-cifar10-cond", "--set", unclear).exit_code == 2
    assert ddo("plan", "edm-cifar10-cond", "--set", unclear, "--gpus=8").exit_code == 0


def test_an_unknown_recipe(ddo) -> None:
    done = ddo("plan", "nothing.toml")
    assert done.exit_code == 2 and "nothing.toml" in done.output


def test_the_page_shows_what_the_command_prints(ddo) -> None:
    page = (Path(__file__).parents[2] / "docs/plan.md").read_text()
    assert page.split("```\n")[1] == ddo("plan", "edm-cifar10-cond").output


def test_merged_networks_judgements_and_a_control_are_counted(ddo) -> None:
    def plan(*more: str) -> str:
        return ddo("plan", "edm-cifar10-cond", *(part for each in more for part in ("--set", each))).output

    usual, one_w = plan(), plan("merge.w=[1]")
    assert "600 evaluations" in usual and "600 evaluations" in one_w
    assert "1,800 evaluations" in plan("merge.w=[-1,0.5,1]")
    assert "604 evaluations" in plan("merge.w=[0.5,1,1.5]", "merge.snapshots=2")
    assert "2 judgements" in usual and "control" not in usual
    controlled = plan("report.control=true")
    assert "3 judgements" in controlled and "control, trained by maximum likelihood" in controlled
    assert "judgement" not in plan("report.enabled=false")
