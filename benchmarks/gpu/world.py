"""The place where a correctness part works: a checkout, a folder, and runs of commands in it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.results import attempt

ROOT = Path(__file__).parents[2]
ON_CPU = os.environ.get("DDO_DEVICE") == "cpu"
PATIENCE = 600 if ON_CPU else 150  # seconds for one command
RUNNING: set[subprocess.Popen[bytes]] = set()
STATISTICS = ("rewards/real", "rewards/fake", "logps/real", "logps/real_ref", "loss/real", "loss/fake", "nonfinite")
Check = Callable[[], Mapping[str, Any]]


@dataclass
class World:
    """A checkout and a folder for all that its training scripts read and write."""

    checkout: Path
    root: Path
    first_port: int  # parts run side by side, so each has its own range

    def __post_init__(self) -> None:
        signal.signal(signal.SIGTERM, end_all)
        self.root.mkdir(parents=True, exist_ok=True)
        self._ports = itertools.count(self.first_port)

    def environment(self, *paths: Path, **variables: str) -> dict[str, str]:
        """Return the environment of a command that finds modules in these folders first."""
        path = os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")])
        own = {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(next(self._ports)), "DDO_CACHE": str(self.root / "cache")}
        return {**os.environ, **own, **variables, "PYTHONPATH": path}

    def python(self, *arguments: object, paths: Iterable[Path] = (), **variables: str) -> str:
        """Run a Python command and return its output; raise an error that ends with its last lines."""
        process, log = self._start(arguments, self.environment(*paths, **variables))
        try:
            status: object = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            status = f"none after {PATIENCE} seconds"
        finally:
            end(process)
        printed = log.read_text(errors="replace")
        if status:
            raise RuntimeError(f"status {status}: {printed[-1200:]}")
        return printed

    def _start(self, arguments: Iterable[object], env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a Python command in its own process group, and return it with the file that it prints to."""
        log = self.root / f"log-{next(self._ports)}.txt"
        with log.open("w") as file:
            command = [sys.executable, *map(str, arguments)]
            process = subprocess.Popen(
                command, cwd=self.root, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        RUNNING.add(process)
        return process, log

    def run(self, script: str, *flags: object, ranks: int = 0) -> list[str]:
        """Return the arguments of `ddo run`; with `ranks`, torchrun starts the script, so that NCCL joins them."""
        torchrun = f"--nnodes=1 --nproc_per_node={ranks} --master_addr=127.0.0.1 --master_port={next(self._ports)}"
        launcher = [f"--torchrun={torchrun}"] if ranks else []
        return ["-m", "ddo_plugin", "run", *launcher, str(self.checkout), script, "--", *map(str, flags)]

    def kill_once(self, command: Sequence[str], ready: Callable[[], bool], paths: Iterable[Path] = ()) -> None:
        """Start a command and kill it with all its children as soon as `ready` returns True."""
        process, log = self._start(command, self.environment(*paths))
        deadline = time.monotonic() + PATIENCE
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        status = process.poll()
        end(process)
        if not ready() or status is not None:
            raise RuntimeError(f"not killed in time, status {status}: {log.read_text(errors='replace')[-1200:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a command and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    RUNNING.discard(process)


def end_running() -> None:
    """Kill all commands that run."""
    for process in list(RUNNING):
        end(process)


def end_all(*_: object) -> None:
    """End the part: run.sh sends SIGTERM at its time limit."""
    end_running()
    os._exit(124)


def check_all(part: str, checks: Mapping[str, Check]) -> None:
    """Run the checks side by side and record each."""
    with ThreadPoolExecutor(1 if ON_CPU else 4) as pool:
        list(pool.map(lambda name: attempt(part, name, checks[name]), checks))


def first_step(outdir: Path) -> dict[str, float]:
    """Return the statistics of the first step of a round, where the rewards must be 0, and the number of steps."""
    rows = [json.loads(line) for line in (outdir / "ddo-stats.jsonl").read_text().splitlines()]
    return {name: rows[0][name] for name in STATISTICS if name in rows[0]} | {"steps": len(rows)}


def difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return whether two networks have the same weights, and by how much they differ."""
    names = [name for name, tensor in one.items() if tensor.is_floating_point() and bool(tensor.isfinite().all())]
    a, b = (torch.cat([state[name].flatten().double() for name in names]) for state in (one, other))
    return {
        "equal": all(torch.equal(one[name], other[name]) for name in one),
        "largest": float((a - b).abs().max()),
        "relative": float((a - b).norm() / a.norm()),
    }


def write_zip(path: Path, channels: int, count: int = 96, classes: int = 3, side: int = 8) -> None:
    """Write a dataset as upstream's dataset_tool.py packs it: noise whose brightness tells the class."""
    draw = np.random.default_rng(0)
    labels = []
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            pixels = draw.normal(60 + 60 * (number % classes), 15, (side, side, channels)).clip(0, 255)
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8).squeeze()).save(buffer, "png")
            archive.writestr(f"{number:06d}.png", buffer.getvalue())
            labels.append([f"{number:06d}.png", number % classes])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


def write_folders(folder: Path, count: int, classes: int = 3, side: int = 56) -> None:
    """Write a folder of images for each class, as VAR reads them."""
    draw = np.random.default_rng(count)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = draw.normal(0, 20, (side, side, 3)) + 60
            pixels[..., label] += 180 * np.linspace(0, 1, side) * draw.uniform(0.5, 1)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / str(label) / f"{number:03d}.png")
