"""Signals while torch is being imported; the other cases are in tests/faults and tests/cli."""

import os
import signal
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from ddo_plugin.base.interrupts import interruptible


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_until_torch_is_imported(monkeypatch, capsys, number, status):
    torch = ModuleType("torch")
    torch.__spec__ = SimpleNamespace(_initializing=True)
    monkeypatch.setitem(sys.modules, "torch", torch)
    loaded = False
    with pytest.raises(SystemExit) as ended, interruptible():
        os.kill(os.getpid(), number)
        time.sleep(0.2)
        loaded = True  # torch's C++ code would have aborted the process before
        torch.__spec__._initializing = False
        time.sleep(5)
    assert loaded
    assert ended.value.code == status
    assert "Interrupted by" in capsys.readouterr().err
