"""Ctrl-C and SIGTERM in EDM2's loop: one line, the status of a shell, and a folder from which the round goes on."""

from __future__ import annotations

import signal

import pytest

from ddo_plugin.finetuning import statistics

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_round_in_one_line_and_it_goes_on(number: int, world, assert_ends_quietly, completed) -> None:
    out = world.root / f"signalled-{number}"
    flags = [f"--outdir={out}", "--duration=4096", "--batch=64"]
    fakes = [f"--ddo-fakes={world.fakes}", "--ddo-beta=0.5", "--ddo-alpha=2"]
    assert_ends_quietly(world, [*fakes, *flags], out / "training-state-0000001.pt", number)
    assert "Training from 0 kimg" not in completed(world.finetune(*flags))
    assert statistics.read(out / statistics.FILE_NAME)[-1]["step"] == 63
