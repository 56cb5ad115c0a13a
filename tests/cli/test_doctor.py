"""`ddo doctor` where something is amiss; where all is well: tests/upstream/test_doctor.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from ddo_plugin.cli import main

EDM = {
    "train.py": "import click\nimport dnnlib\n\ndef main():\n    pass\n",
    "dnnlib/__init__.py": "import torch\n",
    "torch_utils/__init__.py": "",
    "training/loss.py": "class EDMLoss:\n    pass\n",
    "training/networks.py": "class EDMPrecond:\n    pass\n",
    "training/training_loop.py": "def training_loop():\n    import only_here\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that is taken for EDM's; the patch finds no place in its script."""
    for name, text in EDM.items():
        (tmp_path / "edm" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "edm" / name).write_text(text)
    return tmp_path / "edm"


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function: folder, environment variables -> what it said."""
    for name in ("DDO_COMPAT_OFF", "DDO_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.utils.data.Sampler.__init__", object.__init__)  # other tests may have mended it
    return lambda folder, **env: CliRunner().invoke(main, ["doctor", str(folder)], env=env)


def reasons(result: Result) -> list[str]:
    """Why no run could start, one string a reason."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return [line.strip() for line in result.output.split("No training run could start:\n")[1].splitlines()]


def test_without_a_checkout_the_environment_is_shown_all_the_same(doctor, tmp_path):
    result = doctor(tmp_path)
    assert [f"{tmp_path} is not a checkout of a supported upstream" in reason for reason in reasons(result)] == [True]
    shown = [line.split()[0] for line in result.output.splitlines() if line.startswith("  ")]
    assert {"python", "torch", "numpy", "scipy", "GPU", "processor", "sampler", "cpu"} <= set(shown)
    assert "no such folder" in reasons(doctor(tmp_path / "nowhere"))[0]


def test_columns_are_aligned(doctor, tmp_path):
    lines = doctor(tmp_path).output.split("\n\n")[0].splitlines()[1:]
    assert len({line.index(line.split()[1], len(line.split()[0]) + 2) for line in lines}) == 1


def test_a_file_in_conflict_is_a_reason(doctor, checkout):
    result = doctor(checkout)
    assert "upstream  EDM (NVlabs/edm)" in result.output
    assert ["train.py cannot be patched" in reason for reason in reasons(result)] == [True]


def test_a_missing_package_is_a_reason_if_the_training_script_imports_it(doctor, checkout):
    (checkout / "torch_utils/extra.py").write_text("import surely_not_installed")
    assert "surely_not_installed" not in "".join(reasons(doctor(checkout))), "train.py imports no torch_utils"
    (checkout / "dnnlib/extra.py").write_text("import surely_not_installed")
    result = doctor(checkout)
    told = "dnnlib/extra.py imports surely_not_installed, which is missing: pip install surely_not_installed"
    assert told in reasons(result)
    assert "not needed to train: only_here (training/training_loop.py)" in result.output


@pytest.mark.skipif(torch.__version__ < "2.10", reason="torch's Sampler takes a data source")
def test_a_fix_left_out_is_a_reason_if_no_training_starts_without_it(doctor, tmp_path):
    assert any(
        "remove 'sampler' from DDO_COMPAT_OFF" in reason
        for reason in reasons(doctor(tmp_path, DDO_COMPAT_OFF="sampler"))
    )
    result = doctor(tmp_path, DDO_COMPAT_OFF="weights-only")
    assert "not applied, because DDO_COMPAT_OFF names it" in result.output
    assert len(reasons(result)) == 1


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"DDO_COMPAT_OFF": "samplers"}, "did you mean 'sampler'?"),
        ({"DDO_DEVICE": "gpu"}, "DDO_DEVICE=gpu: unknown device"),
    ],
)
def test_a_wrong_setting_is_a_reason(doctor, tmp_path, env, told):
    assert told in reasons(doctor(tmp_path, **env))[0]


def test_asking_for_a_gpu_that_is_not_there_is_a_reason(doctor, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "torch finds no GPU" in reasons(doctor(tmp_path, DDO_DEVICE="cuda"))[0]


def test_the_commit_and_the_edits_of_a_git_checkout_are_told(doctor, checkout):
    assert "commit    unknown: not a git checkout" in doctor(checkout).output
    git = ["git", "-C", str(checkout)]
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Go"],
    ):
        subprocess.run([*git, *command], check=True)
    short = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert f"commit    {short.strip()} of " in doctor(checkout).output
    (checkout / "train.py").write_text(EDM["train.py"] + "# mine\n")
    assert ": Go, 1 changed file\n" in doctor(checkout).output


def test_a_torch_that_cannot_be_imported_is_a_reason(checkout, tmp_path):
    (tmp_path / "broken/torch").mkdir(parents=True)
    (tmp_path / "broken/torch/__init__.py").write_text("raise OSError('libcudart.so.12: cannot open')")
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path / 'broken')!r})\nfrom ddo_plugin.cli import main; main()",
        "doctor",
        str(checkout),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "torch cannot be imported (OSError: libcudart.so.12: cannot open)" in done.stdout
    assert "upstream  EDM (NVlabs/edm)" in done.stdout
    assert "Traceback" not in done.stderr
