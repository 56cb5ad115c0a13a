"""Give each file of a folder to every reader of this package, in a process with limits for each file.

Run as `python -m tests.security.readers FOLDER`: prints a line of JSON for each file. Networks are those of tiny_net.py
in the current folder.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click

TIMES, SPARE, SLACK = 4, 256 << 20, 64 << 20  # allowance.py; the slack is for modules and what the allocator keeps
CPU_S = 300
EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
FORBIDDEN = (*EXECUTING, "pickle.find_class", "webbrowser.open", "socket.connect", "shutil.rmtree")

TINY = """
import torch

class Inner(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(width, width))

class Tiny(torch.nn.Module):
    def __init__(self, width, model_type="Inner", extra=0, filter=(1,), repeat=1, unit=1, blocks=0):
        super().__init__()
        self.model = globals()[model_type](width)
        self.model_type, self.waste = model_type, len(str(repeat * unit))
        if extra:
            self.more = torch.nn.Linear(width * extra, width * extra)
        if len(filter) > 1:
            row = torch.as_tensor(filter, dtype=torch.float32)
            for number in range(1000):
                self.register_buffer(f"filter{number}", row.ger(row))
        if blocks:
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(blocks))

def gadget(*arguments, **kwargs):
    open("pwned", "w")
"""


def readers() -> dict[str, Callable[[Path], object]]:
    """Return what opens a file that a user was given, by name."""
    from click.testing import CliRunner

    from ddo_integrations.var import networks as var_networks
    from ddo_plugin.checkouts.checkout import Checkout
    from ddo_plugin.cli import main
    from ddo_plugin.evaluation.hand_over import write_network
    from ddo_plugin.evaluation.real_statistics import open_standard
    from ddo_plugin.hooks.types import Upstream
    from ddo_plugin.snapshots.pickles import network
    from ddo_plugin.snapshots.reference import load_as_stored

    upstream = Upstream("tiny", "Tiny", "train.py", network_classes={"Tiny": "tiny_net"})
    options = {"ddo_trust": False, "ddo_sha256": None}
    out = Path("out")

    def ddo(*arguments: object) -> None:
        result = CliRunner().invoke(main, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (0, 1, 2), result.exit_code
        assert "Traceback" not in result.output

    def converted(*arguments: object) -> None:
        out.unlink(missing_ok=True)
        ddo("convert", *arguments)

    return {
        "inspect": lambda path: ddo("inspect", path),
        "inspect --source": lambda path: ddo("inspect", "--source", path),
        "load": lambda path: network.load(path, classes=upstream.network_classes),
        "sample": lambda path: load_as_stored(str(path), options, upstream),
        "eval": lambda path: write_network(path, out, Checkout(Path(), upstream), dict),
        "eval --ref": lambda path: open_standard(str(path)),
        "convert": lambda path: converted(path, out),
        "convert --like": lambda path: converted("plain.pth", out, "--like", path),
        "weights of VAR": lambda path: var_networks.read_weights(path, "--ddo"),
    }


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def limit(size: int) -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    data = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (data + TIMES * size + SPARE + (1 << 30),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def watch(events: list[str]) -> None:
    def hook(event: str, arguments: Any) -> None:
        if event in FORBIDDEN:
            events.append(event)

    sys.addaudithook(hook)


def judge(path: Path, chosen: dict[str, Callable[[Path], object]]) -> dict[str, Any]:
    """Open the file by each reader. Everything but a UserError is a failure."""
    events: list[str] = []
    limit(path.stat().st_size)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    watch(events)
    before, failures, seconds, opened = peak_kib(), {}, {}, []
    for name, read in chosen.items():
        started = time.process_time()
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                read(path)
            opened.append(name)
        except click.ClickException as error:
            if error.exit_code != 2 or "\n" in error.message:
                failures[name] = f"{error.exit_code}: {error.message}"
        except BaseException:
            failures[name] = traceback.format_exc()[-1500:]
        seconds[name] = round(time.process_time() - started, 2)
    grown = (peak_kib() - before) << 10
    executed = [*events, *(["pwned"] if Path("pwned").exists() else [])]
    return {"executed": executed, "failures": failures, "seconds": seconds, "grown": grown, "opened": opened}


def in_fork(path: Path, chosen: dict[str, Callable[[Path], object]]) -> dict[str, Any]:
    readable, writable = os.pipe()
    if not (child := os.fork()):
        with os.fdopen(writable, "w") as answer:
            json.dump(judge(path, chosen), answer)
            answer.flush()
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as answer:
        told = answer.read()
    _, status = os.waitpid(child, 0)
    size = path.stat().st_size
    found = json.loads(told) if told else {"executed": [], "failures": {"all": f"the process ended with {status}"}}
    return {"name": path.stem, "size": size, "seconds": {}, "grown": 0, "opened": [], **found}


def run(folder: Path) -> None:
    sys.path.insert(0, str(Path.cwd()))
    Path("tiny_net.py").write_text(TINY)
    for needed in ("tiny_net", "torch._dynamo", "torch.testing", "scipy.linalg"):
        importlib.import_module(needed)
    chosen = readers()
    for path in sorted(folder.iterdir()):
        print(json.dumps(in_fork(path, chosen)), flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
