"""Ctrl-C and SIGTERM in EDM's loop: one line, the status of a shell, and a folder from which the round goes on."""

from __future__ import annotations

import signal

import pytest

from ddo_plugin.finetuning import statistics

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_round_in_one_line_and_it_goes_on(number: int, world, assert_ends_quietly, completed) -> None:
    out = world.root / f"signalled-{number}"
    flags = [f"--outdir={out}", "--duration=0.02", "--dump=1"]
    fakes = [f"--ddo-fakes={world.fakes}", "--ddo-beta=0.5", "--ddo-alpha=2"]
    assert_ends_quietly(world, [*fakes, *flags], out / "network-snapshot-000001.pkl.ddo.json", number)
    state = max(out.glob("training-state-*.pt"))
    flags[1] = "--duration=0.003"
    completed(world.finetune(*flags, f"--resume={state}"))
    assert statistics.read(out / statistics.FILE_NAME)[-1]["step"] >= 93
