"""The parts of the GPU kit that need no GPU: its results and its report. `DDO_DEVICE=cpu` runs the rest on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.gpu import report, results


def broken() -> dict[str, object]:
    raise ValueError("no such | network")


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The report of a few results."""
    monkeypatch.setenv("OUT", str(tmp_path))
    results.attempt("edm", "first step", lambda: {"rewards/real": 0.0})
    results.attempt("var", "first step", broken)
    results.record("speed edm", "network", parameters=56_000_000, batch=128, device="H100", torch="2.11.0")
    results.attempt("speed edm", "step", lambda: {"ms": {"ddo": 101.0, "mle on 2N": 80.0}, "ratio": 1.01})
    results.attempt("speed edm", "memory", lambda: {"peak GiB": {"ddo": 3.5}, "static GiB": 1.0})
    sampled = {"images/s": 300.5, "first batch s": 2.0, "batch": 128, "turns": 3}
    results.attempt("speed refset edm", "--precision=fp16, batches of 128", lambda: sampled)
    results.record("speed edm", "end", status="finished", seconds=60)
    done = CliRunner().invoke(report.main, [str(tmp_path / "results.jsonl")])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_report_names_the_device_and_has_a_row_for_every_result(printed: str) -> None:
    assert "Results on H100, torch 2.11.0" in printed
    assert "| edm | first step | ok | rewards/real 0 |" in printed
    assert "| edm | 56 M | 128 | step | 1.01 |" in printed
    assert "| edm | ddo 3.5 | 1 |" in printed
    assert "- speed refset edm, --precision=fp16, batches of 128: 300.5 images/s, first batch 2.0 s, 3 calls" in printed
    assert "| speed edm | finished | 60 |" in printed


def test_a_failed_check_does_not_stop_the_others_and_is_reported_in_one_row(printed: str) -> None:
    assert "| var | first step | FAILED | ValueError: no such / network |" in printed
