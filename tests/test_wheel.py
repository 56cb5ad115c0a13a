"""The wheel holds everything and works away from the tree; the example plugin installs beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.processes import run_python

ROOT = Path(__file__).parent.parent
SHIPPED = {
    "ddo_plugin": "ddo_plugin",
    "integrations": "ddo_integrations",
    "patches": "ddo_patches",
    "recipes": "ddo_recipes",
}


def run(*command: object, cwd: Path, **env: str) -> str:
    given = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=given | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git knows, so that nothing that lies about gets in."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree, cwd=tree)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The `bin` of a new virtual environment with the wheel; dependencies come from the one that runs the tests."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=home)
    return python.parent


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    tracked = run("git", "ls-files", "-co", "--exclude-standard", *SHIPPED, cwd=ROOT).splitlines()
    expected = {f"{SHIPPED[top]}/{rest}" for top, _, rest in (name.partition("/") for name in tracked)}
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_claims_no_other_top_level_name(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(SHIPPED.values())


def test_the_commands_work_away_from_the_tree(environment: Path, tmp_path: Path) -> None:
    assert "plugins" in run(environment / "ddo", "--help", cwd=tmp_path)
    listed = run(environment / "ddo", "plugins", cwd=tmp_path)
    assert "left out" not in listed
    assert "upstream var" in listed
    where = run(environment / "python", "-c", "import ddo_integrations; print(ddo_integrations.__file__)", cwd=tmp_path)
    assert where.startswith(str(environment.parent))


def test_a_users_own_folder_named_integrations_shadows_nothing(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "integrations").mkdir()
    (tmp_path / "integrations/__init__.py").write_text("raise SystemExit('the wrong one')")
    assert "upstream edm" in run(environment / "python", "-m", "ddo_plugin", "plugins", cwd=tmp_path)


def test_the_demo_computes_in_the_new_environment(environment: Path, tmp_path: Path) -> None:
    flags = ["--out=toy.npz", "--base-steps=5", "--steps=5"]
    run(environment / "python", "-m", "ddo_integrations.demo.toy", *flags, cwd=tmp_path)
    assert (tmp_path / "toy.npz").exists()


def test_the_example_plugin_adds_its_option_and_objective(environment: Path, demo_data: Path, tmp_path: Path) -> None:
    example, site = tmp_path / "example", tmp_path / "site"
    shutil.copytree(ROOT / "examples/ddo-hinge", example)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--target", site, example, cwd=tmp_path)

    assert "hinge  ddo-hinge 0.1.0" in run(environment / "ddo", "plugins", cwd=tmp_path, PYTHONPATH=str(site))

    def python(*command: str) -> str:
        done = run_python(["-m", *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def demo(module: str, *flags: str) -> str:
        return python(f"ddo_integrations.demo.{module}", *flags)

    assert "--ddo-hinge-margin" in demo("train", "--help")
    common = ["--family=diffusion", f"--data={demo_data}", "--steps=3"]
    demo("train", *common, "--outdir=base")
    network = "base/network-000003.safetensors"
    fakes = ["--upstream=digits", *common[:2], f"--network={network}", "--out=fakes", "--count=20"]
    python("ddo_plugin", "refset", "make", *fakes)
    ddo = [f"--ddo={network}", "--ddo-fakes=fakes", "--ddo-objective=hinge", "--ddo-hinge-margin=2"]
    demo("train", *common, "--outdir=tuned", *ddo, "--ddo-alpha=1")
    first = (tmp_path / "tuned/ddo-stats.jsonl").read_text().splitlines()[0]
    assert '"loss/real": 2.0, "loss/fake": 2.0' in first  # r = 0: both hinges are at their margin
