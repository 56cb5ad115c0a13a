"""Ctrl-C and SIGTERM in VAR's loop: one line, the status of a shell, and a folder from which the round goes on."""

from __future__ import annotations

import signal

import pytest

from ddo_plugin.finetuning import statistics

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_round_in_one_line_and_it_goes_on(number: int, world, assert_ends_quietly, completed) -> None:
    out = world.root / f"signalled-{number}"
    flags = [f"--local_out_dir_path={out}", "--bs=16", "--ddo_beta=0.05", "--ddo_iters=8", "--ddo_save=1"]
    assert_ends_quietly(world, [*flags, "--ddo_state=2"], out / "ar-ckpt-ddo.pth", number)
    completed(world.train(f"--ddo={world.base}", *flags, "--ddo_state=2"))
    assert statistics.read(out / statistics.FILE_NAME)[-1]["step"] == 7
