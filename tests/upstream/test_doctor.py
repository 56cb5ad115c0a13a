"""`ddo doctor` on real checkouts."""

import re
import shutil

import pytest
from click.testing import CliRunner

from ddo_plugin.cli import main


@pytest.fixture
def doctor(monkeypatch):
    monkeypatch.setenv("DDO_DEVICE", "cpu")
    monkeypatch.delenv("DDO_COMPAT_OFF", raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["doctor", *map(str, arguments)])


@pytest.fixture
def copy(checkout, tmp_path):
    pytest.importorskip("psutil")
    return shutil.copytree(checkout("edm"), tmp_path / "copy")


@pytest.mark.parametrize("name", ["edm", "edm2"])
def test_a_pristine_checkout_could_start(name, checkout, doctor):
    pytest.importorskip("psutil")
    result = doctor(checkout(name))
    assert result.exit_code == 0, result.output
    assert re.search(r"^  upstream +EDM2? \(NVlabs/edm2?\)$", result.output, re.MULTILINE)
    assert re.search(r"^  commit +[0-9a-f]{7,} of \d{4}", result.output, re.MULTILINE)
    assert re.search(r"^  train\w*\.py +pristine", result.output, re.MULTILINE)
    assert re.search(r"^  cpu +nothing runs: upstream requires a GPU", result.output, re.MULTILINE)
    assert re.search(r"^  to train +PIL, click, numpy, psutil, requests, torch$", result.output, re.MULTILINE)
    assert result.output.endswith("A training run could start.\n")


def test_packages_that_var_imports_in_mid_run_are_named_before(checkout, doctor, monkeypatch):
    from ddo_plugin.checkouts import required_packages

    there = required_packages._is_there
    monkeypatch.setattr(required_packages, "_is_there", lambda name: name not in ("tensorboard", "tap") and there(name))
    result = doctor(checkout("VAR"))
    assert result.exit_code == 1
    assert "utils/misc.py imports tensorboard, which is missing: pip install tensorboard\n" in result.output
    assert "utils/arg_util.py imports tap, which is missing: pip install typed-argument-parser\n" in result.output
    assert "huggingface_hub" in re.search(r"^  to train +(.*);", result.output, re.MULTILINE).group(1)


def test_only_the_fixes_of_an_upstream_are_told(checkout, doctor):
    assert re.findall(r"^  (sampler|no-group|cpu) ", doctor(checkout("VAR")).output, re.M) == ["cpu", "no-group"]
    assert re.findall(r"^  (sampler|no-group|cpu) ", doctor(checkout("edm")).output, re.M) == ["sampler", "cpu"]


def test_looking_changes_nothing(checkout, doctor):
    import torch

    before = torch.load, torch.randint, torch.distributed.init_process_group
    doctor(checkout("edm"))
    assert (torch.load, torch.randint, torch.distributed.init_process_group) == before


def test_a_missing_module_stops_a_run(copy, doctor):
    path = copy / "training/loss.py"
    path.write_text(path.read_text() + "\nimport absent_module\n")
    result = doctor(copy)
    assert result.exit_code == 1
    assert "training/loss.py imports absent_module, which is missing: pip install absent_module\n" in result.output


def test_a_script_that_cannot_be_patched_stops_a_run(copy, doctor):
    path = copy / "train.py"
    path.write_text(re.sub(r"^(import|from) .*\n", "", path.read_text(), flags=re.MULTILINE))
    result = doctor(copy)
    assert result.exit_code == 1
    assert "No training run could start:\n  train.py cannot be patched: " in result.output


def test_a_patched_checkout_is_told(copy, doctor):
    assert CliRunner().invoke(main, ["apply", str(copy)]).exit_code == 0
    result = doctor(copy)
    assert result.exit_code == 0
    assert "  train.py  patched\n" in result.output


def test_a_needed_fix_that_is_switched_off_stops_a_run(checkout, doctor, monkeypatch):
    monkeypatch.setenv("DDO_COMPAT_OFF", "cpu")
    result = doctor(checkout("edm"))
    assert result.exit_code == 1
    assert "remove 'cpu' from DDO_COMPAT_OFF" in result.output


def test_a_folder_outside_of_git_has_no_commit(copy, doctor):
    shutil.rmtree(copy / ".git")
    assert "  commit    unknown: not a git checkout\n" in doctor(copy).output
