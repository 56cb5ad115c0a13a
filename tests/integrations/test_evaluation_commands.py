"""The modules that evaluate networks, started with paths that are wrong by mistake or malice: one message, status 2."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ddo_integrations.demo import evaluate as demo
from ddo_integrations.edm import evaluate as edm
from ddo_integrations.edm2 import evaluate as edm2
from ddo_integrations.nvlabs import evaluation
from ddo_integrations.var import evaluate as var
from ddo_plugin.checkouts.checkout import Checkout
from ddo_plugin.evaluation import measure
from ddo_plugin.hooks.types import Upstream
from tests.cli.test_wrong_input import PATHS

USUAL = {"network": "absent.pkl", "ref": "absent.npz", "out": "new.json", "data": "absent", "seeds": "0"}


@pytest.mark.parametrize("command", [edm.main, edm2.main, var.main, demo.main], ids=["edm", "edm2", "var", "demo"])
def test_a_wrong_path_gives_one_message_and_status_2(
    command: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluation, "open_checkout", lambda _: Checkout(tmp_path, Upstream("edm", "EDM", "train.py")))
    monkeypatch.setattr(measure, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    Path("loop").symlink_to("loop")
    known = {option.name for option in command.params}
    usual = {name: value for name, value in USUAL.items() if name in known}
    more = ["--family=diffusion"] if "family_name" in known else []
    for name in set(usual) - {"seeds"}:
        for path in PATHS:
            given = {**usual, name: path}
            result = CliRunner().invoke(command, [*(f"--{key}={value}" for key, value in given.items()), *more])
            assert isinstance(result.exception, SystemExit), (name, path, result.exception)
            assert result.exit_code == 2, (name, path, result.output)
    assert {path.name for path in tmp_path.iterdir()} <= {"loop", "cache"}
