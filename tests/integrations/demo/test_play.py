"""The demo from end to end, in small: every hook is used, and neither a kill nor a second run changes a number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ddo_integrations.demo import plugin, report
from ddo_integrations.demo.names import FAMILIES
from ddo_plugin.hooks import hookspecs
from ddo_plugin.jobs.journal import FILE_NAME, Journal, read
from tests.processes import run_python

HOOKS = [name for name in vars(hookspecs) if name.startswith("ddo_")]
DEADLINE_S = 120


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def processes_of(out: Path) -> list[str]:
    """Command lines of living processes that work in `out`."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(out) in line:
            lines.append(line)
    return lines


def results(out: Path) -> dict[str, object]:
    """Every evaluation and every winner, by name."""
    facts = [fact for fact in read(out / FILE_NAME) if fact["fact"] in ("evaluated", "winner", "selected")]
    evaluations = {str(p.relative_to(out)): json.loads(p.read_text()) for p in out.rglob("*-eval-*.json")}
    return {"facts": sorted(map(str, facts)), **evaluations}


# VAR's loop, `ddo convert`, `ddo merge`, recipes and `ddo plan` call these
ELSEWHERE = {"ddo_loader", "ddo_convert", "ddo_merge", "ddo_evaluation_options", "ddo_count", "ddo_effort"}


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook not in ELSEWHERE])
def test_every_hook_is_called(hook: str, finished: tuple[Path, str]) -> None:
    out, printed = finished
    printed += "".join(log.read_text() for log in out.rglob("*.log"))
    if hook == "ddo_upstreams":
        command = [sys.executable, "-m", "ddo_plugin", "plugins"]
        env = {**os.environ, "DDO_TRACE_HOOKS": "1"}
        printed = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stderr
    assert f"[hook] {hook}(" in printed


def test_each_evaluation_measures_recall_beside_the_distance(finished) -> None:
    evaluations = [json.loads(path.read_text()) for path in finished[0].rglob("*-eval-*.json")]
    assert evaluations
    for found in evaluations:
        assert found["metrics"].keys() == {"fd", "precision", "recall"}
        assert found["score"] == found["metrics"]["fd"]
        assert all(0 <= one["recall"] <= 1 for one in found["by_seed"])


@pytest.mark.thorough  # quick: tests/selfplay/test_kill.py with stand-ins for the steps
def test_what_a_kill_interrupted_goes_on_to_the_same_numbers(tmp_path: Path, start_tiny, finished) -> None:
    out = tmp_path / "killed"

    first = start_tiny(out)
    wait_for(lambda: list(out.glob("base/diffusion-*/training-state.pt")))  # in the middle of a training run
    first.kill()
    wait_for(lambda: not processes_of(out))  # its children notice

    second = start_tiny(out)
    wait_for(lambda: any(f["fact"] == "selected" for f in read(out / FILE_NAME)))  # between rounds
    second.kill()
    wait_for(lambda: not processes_of(out))

    third = start_tiny(out)
    printed = third.communicate(timeout=DEADLINE_S)[1]
    assert third.returncode == 0, printed
    assert results(out) == results(finished[0])


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, start_tiny) -> None:
    first = start_tiny(tmp_path)
    wait_for((tmp_path / FILE_NAME).exists)
    second = run_python(["-m", "ddo_plugin", "demo", f"--out={tmp_path}"])
    first.kill()
    wait_for(lambda: not processes_of(tmp_path))
    assert second.returncode == 2
    assert "another run is working in" in second.stderr


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run_python(["-m", "ddo_plugin", "demo", f"--out={tmp_path / 'file' / 'below'}"])
    assert result.returncode == 2
    assert "cannot write to this folder (Not a directory)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older Pythons cannot leave the current folder out")
def test_modules_in_the_folder_where_the_demo_is_started_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("raise SystemExit('shadowed')")
    step = plugin.command("evaluate", {})

    def printed(env: Mapping[str, str]) -> str:
        run = subprocess.run([*step.argv, "--help"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return run.stdout + run.stderr

    assert "Usage" in printed({**os.environ, **step.env})
    assert "shadowed" in printed({**os.environ, "PYTHONSAFEPATH": ""})


def test_ctrl_c_says_that_the_same_command_goes_on_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ddo_plugin", "demo", "--quick", f"--out={tmp_path}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(f["fact"] == "finished" for f in read(tmp_path / FILE_NAME)))
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 130
    assert "Run the same command again to resume." in printed
    assert "Traceback" not in printed
    assert not processes_of(tmp_path)


def test_each_arm_has_its_history_and_the_table_its_rows(finished) -> None:
    arms = report.by_family(finished[0], FAMILIES)
    assert {(family, arm) for family, both in arms.items() for arm in both} == {
        (family, arm) for family in ("diffusion", "tokens") for arm in ("ddo", "mle")
    }
    assert [point.round for point in arms["diffusion"]["ddo"].points] == [0, 1, 2]
    assert len(arms["diffusion"]["ddo"].points[1].steps()) == 40
    assert [row[0] for row in report.table(arms).rows] == ["diffusion", "tokens"]


def test_the_report_is_one_page_with_all_its_figures(finished) -> None:
    page = report.write(finished[0], report.by_family(finished[0], FAMILIES), "ddo demo").read_text()
    for words in ("base", "control", "DDO", "implicit discriminator", "log-likelihood of the real data", "toy"):
        assert words in page
    assert page.count("<svg") == 7  # distance, training and samples of two families, the toy
    assert "src=" not in page
    assert "<script" not in page


def test_a_family_that_was_left_unfinished_does_not_keep_the_others_from_being_reported(tmp_path: Path) -> None:
    journal, evaluation = Journal(tmp_path / FILE_NAME), tmp_path / "eval.json"
    evaluation.write_text('{"score": 1.0}')
    for plan in ("diffusion/ddo", "diffusion/mle", "tokens/ddo"):  # killed before tokens/mle had a base
        journal.append("evaluated", plan=plan, round=0, network="base", evaluation="eval.json", candidate=None)
    rows = report.table(report.by_family(tmp_path, ["diffusion"])).rows
    assert [row[0] for row in rows] == ["diffusion"]


def test_every_snapshot_has_a_sidecar_that_says_where_it_came_from(finished) -> None:
    out = finished[0]
    sidecar = json.loads(next(out.glob("diffusion/ddo/r02-*/network-*.ddo.json")).read_text())
    reference = next(out.glob("diffusion/ddo/r01-train-*/network-*.safetensors"))
    assert sidecar["reference"]["source"] == str(reference)
    assert (sidecar["options"]["ddo_alpha"], sidecar["options"]["ddo_beta"]) == (2.0, 0.3)
    assert sidecar["fakes"]["reference_sha256"] == sidecar["reference"]["sha256"]
