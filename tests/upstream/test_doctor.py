"""`ddo doctor` on the real upstreams."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("name", "script"), [("edm", "train.py"), ("edm2", "train_edm2.py")])
def test_the_doctor_knows_the_upstream_and_what_it_imports(checkout, name, script):
    pytest.importorskip("psutil")
    command = [sys.executable, "-m", "ddo_plugin", "doctor", str(checkout(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"({'NVlabs/' + name})\n" in done.stdout
    assert f"  {script}" in done.stdout
    assert "to train  PIL, click, numpy, psutil, requests, torch\n" in done.stdout
    assert done.returncode == 0, done.stdout
