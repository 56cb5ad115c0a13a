"""Count the promises of docs/security.md: `python -m benchmarks.trust`, or with `--quick` a sample of each.

Prints a table with what was tried and how often a promise failed. The exit status is 1 if any failed.
The attacks, the damage and the wrong input come from the tests, which check the same promises one by one.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import pytest

from tests import test_damaged_files
from tests.base import test_hostile_downloads
from tests.cli import test_races, test_wrong_input
from tests.conftest import upstreams
from tests.faults import injection
from tests.faults import world as fault_world
from tests.faults.cases import CASES, PATCHING, fill_with_checkouts
from tests.faults.shim import FAULTS, SIGNALS
from tests.processes import run_python
from tests.security import attacks, test_attacks, test_mutations
from tests.security.readers import TIMES
from tests.upstream import test_patch_mutations

QUICK_MUTATIONS, MUTATIONS = 200, 10_000
QUICK_PATCHES, PATCHES = 50, 2000  # mutations of each file
QUICK_SHARE, SHARE = 0.03, 0.2  # of all pairs of an operation on the disk and a fault, drawn with a seed
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """A promise, how often it was tried, each failure in words, and what was measured."""

    promise: str
    tried: int
    failures: Sequence[str]
    figure: str = ""


def code(folder: Path, quick: bool) -> Row:
    """Files that try to run code, each opened by every reader."""
    files = attacks.code_attacks()
    found = test_attacks.open_by_all(test_attacks.sample(files) if quick else files, folder)
    executed = sum(bool(one["executed"]) for one in found)
    return Row("no code of a file is run", len(found), _failures(found), f"{executed} executed")


def exhaustion(folder: Path, quick: bool) -> Row:
    """Files that try to take memory or time out of proportion, each opened by every reader."""
    files = attacks.exhaustion_attacks()
    found = test_attacks.open_by_all(test_attacks.sample(files) if quick else files, folder)
    memory = max(one["grown"] - TIMES * one["size"] for one in found)
    slowest = max(found, key=lambda one: _slowest(one))
    return Row(
        "a file takes bounded memory and time",
        len(found),
        _failures(found),
        f"at most {TIMES}× its size + {memory / MIB:.0f} MiB; slowest reader {_slowest(slowest):.0f} s for "
        f"{slowest['size'] / 1e6:.1f} MB",
    )


def _slowest(found: dict[str, Any]) -> float:
    return float(max(found["seconds"].values(), default=0.0))


def _failures(found: list[dict[str, Any]]) -> list[str]:
    told = test_attacks.problems(found)
    return [f"{name} {what}: {why}" for what, files in told.items() for name, why in files.items()]


def mutations(folder: Path, quick: bool) -> Row:
    """Networks, statistics and checkpoints with random changes, each opened by every reader."""
    found = test_mutations.mutate(QUICK_MUTATIONS if quick else MUTATIONS, folder)
    failures = [*found["executed"], *(f"{name}: {why}" for name, why in found["failures"].items())]
    return Row("a mutated pickle is read, or refused in one line", found["count"], failures)


def damage(folder: Path, quick: bool) -> Row:
    """Zips, arrays, images, reference sets and recipes with random damage."""
    failures, count = [], test_damaged_files.FEW if quick else test_damaged_files.MANY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, kind in enumerate(test_damaged_files.KINDS.values()):
            own = folder / str(number)
            own.mkdir()
            failures += test_damaged_files.damage_and_read(kind, own, count)
    kinds = len(test_damaged_files.KINDS)
    return Row("a damaged file is read, or refused in one line", count * kinds, failures, f"{kinds} kinds of files")


def wrong_input(folder: Path, quick: bool) -> Row:
    """Every option and argument of every command, with wrong values."""
    lines = test_wrong_input.catalogue()
    names = {name for name, _ in lines}
    if quick:
        lines = random.Random(0).sample(lines, test_wrong_input.FEW)
    with _world(folder, test_wrong_input.fill) as (world, monkeypatch):
        test_wrong_input.stay_this_program(monkeypatch)
        told = [test_wrong_input.problem(*line, world) for line in lines]
    failures = [line for line in told if line]
    return Row("wrong input ends in one message and status 2", len(lines), failures, f"{len(names)} commands")


def races(folder: Path, quick: bool) -> Row:
    """Two commands at once that create the same output."""
    failures, count = [], test_races.FEW if quick else test_races.MANY
    with _world(folder, test_races.prepare) as (world, _):
        for name, arguments in test_races.COMMANDS.items():
            for number in range(count):
                failures += test_races.race(arguments, world / f"{name.replace(' ', '-')}-{number}")
    commands = len(test_races.COMMANDS)
    return Row("of two commands at once, one creates the output", count * commands, failures, f"{commands} commands")


def faults(folder: Path, quick: bool) -> Row:
    """EIO, ENOSPC and SIGKILL at operations of each command on the disk."""
    return _injected("a disk error or a kill leaves no incomplete file", folder, quick, FAULTS)


def signals(folder: Path, quick: bool) -> Row:
    """Ctrl-C and SIGTERM at operations of each command on the disk."""
    return _injected("a signal ends a command with one line", folder, quick, SIGNALS)


def _injected(promise: str, folder: Path, quick: bool, kinds: Sequence[str]) -> Row:
    own, share = folder / "injected", QUICK_SHARE if quick else SHARE
    own.mkdir()
    with _world(folder, lambda world, _, data: fault_world.fill(world, data)) as (world, _):
        cases = [(name, case, world) for name, case in CASES.items()]
        for upstream in _checkouts():
            worlds = fill_with_checkouts(folder / upstream.name, upstream)
            cases += [(f"{name} {upstream.name}", PATCHING[name], world) for name, world in worlds.items()]
        outcomes = [*injection.inject_each(cases, own, share=share, faults=kinds)]
    return Row(
        promise,
        sum(outcome.injected for outcome in outcomes),
        [problem for outcome in outcomes for problem in outcome.problems],
        f"{len(outcomes)} commands; {share:.0%} of the faults at {sum(outcome.operations for outcome in outcomes):,} "
        "operations on the disk",
    )


def patches(folder: Path, quick: bool) -> Row:
    """Mutations of the files that the patches are for, judged by their bytecode."""
    count, files, patchable = QUICK_PATCHES if quick else PATCHES, 0, 0
    failures: list[str] = []
    for upstream in _checkouts():
        for patch, old in test_patch_mutations.patches_of(upstream, upstream.name):
            states, wrong = test_patch_mutations.judge(patch, old, count, seed=16)
            files, patchable, failures = files + 1, patchable + states["patchable"], failures + wrong
    figure = f"{files} files; {patchable:,} mutations called patchable" if files else f"no checkout in {upstreams()}"
    return Row("a patch is placed only where it works", count * files, failures, figure)


def _checkouts() -> list[Path]:
    return [upstreams() / name for name in test_patch_mutations.UPSTREAMS if (upstreams() / name).is_dir()]


def downloads(folder: Path, quick: bool) -> Row:
    """Servers that lie. As these tests share little, pytest runs and counts them."""
    report = folder / "report.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'tests'}", f"--junitxml={report}"]
    argv = [sys.executable, "-m", "pytest", *options, str(test_hostile_downloads.__file__)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if not report.exists():
        raise click.ClickException(f"the tests of downloads did not run:\n{done.stdout}{done.stderr}")
    cases = [case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return Row("a download is the file of its address, or none", len(cases), [case.attrib["name"] for case in failed])


# The rows of the table, in its order. To add one, write a function (empty folder, quick) -> Row and name it here.
ROWS: tuple[Callable[[Path, bool], Row], ...] = (
    *(code, exhaustion, mutations, damage),  # files
    *(wrong_input, races, faults, signals),  # commands
    *(patches, downloads),
)


@contextmanager
def _world(
    folder: Path, fill: Callable[[Path, pytest.MonkeyPatch, Path], None]
) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """Enter a folder that `fill` fills. At the end, undo what the block sets in this process."""
    world, data = folder / "world", folder / "data"
    world.mkdir()
    run_python(["-m", "ddo_integrations.demo.prepare", f"--out={data}"]).check_returncode()
    with pytest.MonkeyPatch.context() as monkeypatch:
        fill(world, monkeypatch, data)
        yield world, monkeypatch


@click.command()
@click.option("--quick", is_flag=True, help="Try a sample of each promise.")
@click.option(
    "--only",
    type=click.Choice([row.__name__ for row in ROWS]),
    multiple=True,
    help="Row to make. Can be repeated.  [default: all rows]",
)
def main(quick: bool, only: tuple[str, ...]) -> None:
    """Count the promises of docs/security.md."""
    click.echo(f"{'promise':50}{'tried':>8}{'failures':>10}{'seconds':>9}  figure")
    failures: list[str] = []
    for make in ROWS:
        if not only or make.__name__ in only:
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="ddo-trust-") as name:
                row = make(Path(name), quick)
            seconds = time.monotonic() - started
            click.echo(f"{row.promise:50}{row.tried:8,}{len(row.failures):10,}{seconds:9.0f}  {row.figure}")
            failures += row.failures
    for failure in failures:
        click.echo(f"\n{failure}", err=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
