"""Every option and argument of every command, taken from click, with values that are wrong by mistake or malice.

A command then either works, or it ends with status 2 (`doctor` and `inspect` also with 1) and one message, without a
traceback, within seconds, and leaves nothing behind.
"""

from __future__ import annotations

import os
import random
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from ddo_integrations.demo.families import build
from ddo_plugin.base import commands as base_commands
from ddo_plugin.base.image_files import png
from ddo_plugin.checkouts import run_script
from ddo_plugin.cli import COMMANDS, main
from ddo_plugin.cli._generating import GeneratingCommand
from ddo_plugin.hooks import plugins
from ddo_plugin.sampling.refsets import format as refset

FEW = 120  # of the catalogue, in the quick test
SECONDS = 20  # for each command
ALSO = {"doctor": (1,), "inspect": (1,), "curve": (1,), "selfplay": (1,)}  # statuses with a meaning of their own
NOT_UTF8 = os.fsdecode(b"\xff\xfe")
LONG = "x" * 300

DIGITS = ["--network=network.safetensors", "--upstream=digits", "--family=diffusion", "--data=data"]
USUAL: dict[str, list[str]] = {
    "apply": ["checkout"],
    "revert": ["checkout"],
    "status": ["checkout"],
    "doctor": ["checkout"],
    "run": ["checkout", "train.py"],
    "inspect": ["network.pkl"],
    "convert": ["ar-ckpt-last.pth", "new.pth"],
    "merge": ["network.safetensors", "network.safetensors", "--w=0.5", "--out=new.safetensors", "--upstream=digits"],
    "sample": [*DIGITS, "--seeds=1", "--grid=new.png"],
    "refset make": [*DIGITS, "--count=2", "--out=new"],
    "refset info": ["set"],
    "refset verify": ["set"],
    "refset pack": ["images", "new"],
    "refset unpack": ["set", "new.zip"],
    "eval": ["images", "--ref=ref.npz", "--out=new.json"],
    "curve": ["--scales=1", "--out=new", "--", "false", "{scale}", "{out}"],
    "cp": ["digits", "new.toml"],
    "validate": ["recipe.toml"],
    "plan": ["recipe.toml", "--gpus=1"],
    "selfplay": ["recipe.toml", "--dry-run", "--out=new"],
    "report": ["run"],
    "demo": ["--family=neither"],
}

PATHS = [
    *("", " ", ".", "..", "/", "-", "~", "*", LONG, f"{LONG}/below", "a/" * 2500 + "a", "é" * 200, "a\nb", "\x1b[31m"),
    *("absent", "absent/below", "file", "file/below", "empty", "images", "images.zip", "set", "ref.npz", "recipe.toml"),
    *("loop", "loop/below", "dangling", "fifo", "to-fifo", "folder.py", NOT_UTF8, f"{NOT_UTF8}.toml", "$(touch pwned)"),
    *(
        "/dev/null",
        "/dev/full",
        "/dev/zero",
        "/proc/self/mem",
        "/proc/self/fd",
        "http://",
        "http://[",
        "file:///absent",
    ),
    *("ftp://a/b", f"http://{NOT_UTF8}/a", "file://" + LONG, "random.bin", "random.npz", "random.zip", "random.toml"),
]
NUMBERS = [
    *(
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "1e400",
        "-1e400",
        "9" * 5000,
        "1.5",
        "0x10",
        "１",
        "1_0",
        "true",
        "1,2",
    ),
    *(str(2**31), str(2**63), str(2**64), "1e-400", NOT_UTF8, "1e308"),
]
LISTS = [*NUMBERS, ",", "1,", "1-", "5-3", "0-99999999999", "1,,2", "-", "dataset:", "dataset:fifo", "dataset:loop"]
TEXTS = [
    *("", " ", "=", "a=", "=a", "a=b", "rounds=", "rounds=-1", "rounds=9e99", "sweep=1", "policy.retries=[", "a.b.c=1"),
    *('"', "'", "'--nproc_per_node=2", "x" * 10_000, NOT_UTF8, "\x1b[31m", "a=" + "[" * 3000, "title=" + "9" * 5000),
    *("$(touch pwned)", "fid,", ",", "nan", "{", "{out}", "uniform", "random", "title=1979-01-01", 'title="""', "\0"),
]


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        assert found is not None
        yield from commands(found, f"{name} {child}".strip())


def values(parameter: click.Parameter) -> list[str]:
    kind = parameter.type
    if isinstance(kind, click.Path):
        return PATHS
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return NUMBERS
    if isinstance(kind, click.Choice):
        return TEXTS[:20]
    if kind.name in ("integers", "numbers") or parameter.name in ("seeds", "labels"):
        return LISTS
    return [*PATHS, *TEXTS]


def samplers(command: click.Command) -> list[click.Parameter]:
    """Return the options that the demo's sampler adds to a command."""
    if not isinstance(command, GeneratingCommand):
        return []
    return list(plugins.collect(plugins.manager().hook.ddo_generator_options(upstream="digits")))


def catalogue() -> list[tuple[str, list[str]]]:
    """Return all command lines, each with the command's name."""
    lines = []
    for name, command in commands(main):
        usual = USUAL.get(name, [])
        dashes = usual.index("--") if "--" in usual else len(usual)
        positions = [at for at, text in enumerate(usual[:dashes]) if not text.startswith("--")]
        arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
        for parameter in [*command.params, *samplers(command)]:
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                added = [[f"{parameter.opts[0]}={value}"] for value in values(parameter)]
                lines += [(name, [*usual[:dashes], *own, *usual[dashes:]]) for own in added]
            elif isinstance(parameter, click.Argument):
                at = positions[arguments.index(parameter)]
                for value in values(parameter):
                    lines.append((name, [*usual[:at], value, *usual[at + 1 :]]))
    return lines


def fill(folder: Path, monkeypatch: pytest.MonkeyPatch, demo_data: Path) -> None:
    """Enter a folder, and write valid files, odd files and odd names."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    for name in ("images", "empty", "folder.py", "checkout", "run", "cache"):
        Path(name).mkdir()
    for number, image in enumerate(images):
        Path(f"images/{number}.png").write_bytes(png(image))
    with zipfile.ZipFile("images.zip", "w") as archive:
        archive.write("images/0.png", "0.png")
    refset.write(Path("set"), images, None, kind="images", reference={}, sampler={}, seed=0)
    np.savez("ref.npz", mu=np.arange(3.0), sigma=np.diag([1.0, 2.0, 3.0]))
    torch.save({"trainer": {"var_wo_ddp": {"pos_1LC": torch.zeros(3)}}}, "ar-ckpt-last.pth")
    Path("network.pkl").write_bytes(b"\x80\x04N.")
    Path("data").symlink_to(demo_data)
    family = build("diffusion", demo_data)
    save_file(family.network().state_dict(), "network.safetensors", metadata={"family": "diffusion"})
    Path("file").write_text("text")
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    Path(".#lock.py").symlink_to("user@host.1234")  # of an editor
    os.mkfifo("fifo")
    Path("to-fifo").symlink_to("fifo")
    for name in ("random.bin", "random.npz", "random.zip", "random.toml", NOT_UTF8, f"{NOT_UTF8}.toml"):
        Path(name).write_bytes(random.Random(0).randbytes(1000))
    CliRunner().invoke(main, ["cp", "digits", "recipe.toml"])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_data: Path) -> Path:
    fill(tmp_path, monkeypatch, demo_data)
    return tmp_path


def tree(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "cache" not in path.parts}


def run_bounded(arguments: list[str]) -> Result:
    def stop(*_: object) -> None:
        raise TimeoutError(f"not finished after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return CliRunner().invoke(main, arguments)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def problem(name: str, arguments: list[str], world: Path) -> str:
    """Return what is wrong with the end of a command; an empty string if it ends as it should."""
    before = tree(world)
    result = run_bounded([*name.split(), *arguments])
    told = f"{name} {[argument[:60] for argument in arguments]}: "
    left = tree(world) - before
    for path in sorted(left, reverse=True):
        Path(path).unlink() if not Path(path).is_dir() or Path(path).is_symlink() else Path(path).rmdir()
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{told}{result.exception!r}"
    if result.exit_code not in (0, 2, *ALSO.get(name, ())):
        return f"{told}status {result.exit_code}, {result.output}"
    if result.exit_code and left and name != "curve":
        return f"{told}left {left}"
    if before - tree(world):
        return f"{told}removed {before - tree(world)}"
    return ""


def stay_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests' process: some commands would become another program."""

    def refuse(command: base_commands.Command) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(run_script, "become_process", refuse)


@pytest.fixture
def no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_this_program(monkeypatch)


def assert_good(lines: list[tuple[str, list[str]]], world: Path) -> None:
    told = [problem(name, arguments, world) for name, arguments in lines]
    wrong = [line for line in told if line]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(told)}", *wrong])


def test_every_command_is_in_the_catalogue() -> None:
    named = {name for name, _ in commands(main)}
    assert {name.split()[0] for name in named} >= set(COMMANDS)
    assert {name for name, command in commands(main) if command.params} <= USUAL.keys()


@pytest.mark.usefixtures("no_other_program")
def test_wrong_input_gives_one_message_and_status_2(world: Path) -> None:
    assert_good(random.Random(0).sample(catalogue(), FEW), world)


@pytest.mark.thorough
@pytest.mark.usefixtures("no_other_program")
def test_all_wrong_input_gives_one_message_and_status_2(world: Path) -> None:
    assert_good(catalogue(), world)
