"""`ddo doctor` where there is no checkout; real ones are in tests/upstream/test_doctor.py."""

import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from ddo_plugin.cli import main


def test_a_folder_that_is_no_checkout_stops_a_run_and_the_environment_is_told_all_the_same(tmp_path):
    result = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert result.exit_code == 1
    assert f"torch {torch.__version__}" in result.output
    assert f"problem: {tmp_path} is no checkout" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_asked_for_and_absent_stops_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DDO_DEVICE", "cuda")
    result = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert "problem: DDO_DEVICE=cuda, but torch finds no GPU; unset it to run on the CPU" in result.output


def test_listing_the_commands_imports_no_torch():
    code = "import sys; from ddo_plugin.cli import main; main(['--help'], standalone_mode=False)"
    code += "; import ddo_plugin.compat; print(sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "doctor" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
