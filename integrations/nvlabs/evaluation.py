"""A network or its samples, judged by its own upstream's scripts; what they print, as JSON.

An integration's `evaluate` module says which scripts those are and how to read them; the rest is here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from ddo_plugin import (
    EVALUATION_SAMPLES,
    Checkout,
    Command,
    IntegerList,
    UserError,
    check_place,
    combine_seeds,
    commit,
    digest,
    flags,
    launcher,
    local_file,
    module_command,
    open_checkout,
    open_standard,
    progress,
    read_images,
    write_result,
)
from ddo_plugin.base import environment
from ddo_plugin.checkouts import run_script
from ddo_plugin.sampling.refsets import format as refset

F = TypeVar("F", bound=Callable[..., Any])
NETWORKS = ("--net", "--gnet", "--network")  # options of the samplers whose value is unpickled


@dataclass(frozen=True)
class Job:
    """What to judge, against what, and the commands that were run for it."""

    what: Path  # a network or samples
    out: Path
    checkout: Checkout
    ref: str
    num: int
    metrics: tuple[str, ...]
    batch: int
    torchrun: str | None
    sampler: tuple[str, ...]  # more arguments for upstream's sampler
    labels: str | None = None  # classes of the samples; None: upstream's sampler draws them
    trust: bool = False
    commands: list[str] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """Where samples lie while they are judged."""
        return self.out.absolute().with_name(f".{self.out.name}.samples")

    def image_seeds(self, seed: int) -> range:
        """Seeds of the images of evaluation `seed`: blocks that do not overlap, as EDM's 0-49999, 50000-99999, ..."""
        return range(seed * self.num, (seed + 1) * self.num)

    def run(self, script: str, *arguments: str) -> str:
        """What a script of the checkout printed; it is shown on stderr while it runs."""
        command = run_script.prepare(self.checkout, script, arguments, launcher(self.torchrun))
        self.commands.append(shlex.join([script, *arguments]))
        printed, status = _run(command)
        if status != 0:
            raise UserError(f"{script} of {self.checkout.root} ended with status {status}; what it said stands above")
        return printed

    def generate(self, script: str, option: str, seed: int, folder: Path) -> None:
        """Images of the network by upstream's sampler, which takes it as `option`; it draws their classes."""
        seeds = self.image_seeds(seed)
        named = {option: self.what, "outdir": folder, "seeds": f"{seeds[0]}-{seeds[-1]}", "batch": self.batch}
        self.run(script, "--subdirs", *flags(named), *self.sampler)

    def sample(self, seeds: range, folder: Path) -> None:
        """Images of the network with `labels`, by `ddo sample`."""
        images = {"outdir": folder, "labels": self.labels, "seeds": f"{seeds[0]}-{seeds[-1]}", "batch": self.batch}
        network = {"checkout": self.checkout.root, "network": self.what, "ddo-trust": self.trust}
        arguments = [*flags({**network, **images, "subdirs": True, "torchrun": self.torchrun}), *self.sampler]
        self.commands.append(shlex.join(["ddo", "sample", *arguments]))
        _, status = _run(module_command("ddo_plugin", ["sample", *arguments]))
        if status != 0:
            raise UserError(f"`ddo sample` ended with status {status}; what it said stands above")


Judge = Callable[[Job, int], Mapping[str, float]]  # job, evaluation seed -> metrics of a network
JudgeSamples = Callable[[Job, Path, int], Mapping[str, float]]  # job, folder or zip, seed that chooses among them


def evaluation_options(metrics: Sequence[str]) -> Callable[[F], F]:
    """What an `evaluate` module asks for; `metrics` are those that upstream can compute, the default first."""
    made = [
        click.Option(["--network"], required=True, metavar="PKL|URL|SAMPLES", help="A network, or samples of one."),
        click.Option(["--out"], type=click.Path(path_type=Path), required=True, help="JSON file to write."),
        click.Option(["--ref"], required=True, metavar="NPZ|PKL|URL", help="Statistics of the real images."),
        click.Option(["--checkout"], type=click.Path(path_type=Path), default=".", help="Upstream's repository."),
        click.Option(["--metrics"], default=metrics[0], show_default=True, help=f"Of {', '.join(metrics)}."),
        click.Option(
            ["--num"], type=click.IntRange(min=2), default=EVALUATION_SAMPLES, show_default=True, help="Samples a seed."
        ),
        click.Option(
            ["--seeds"],
            type=IntegerList(),
            default="0",
            show_default=True,
            help="Seed k: image seeds k·num to (k+1)·num − 1.",
        ),
        click.Option(["--batch"], type=click.IntRange(min=1), default=64, show_default=True),
        click.Option(["--torchrun"], metavar="OPTIONS", help="Start the scripts by torchrun."),
        click.Option(["--sampler"], default="", metavar="ARGS", help="More arguments for upstream's sampler."),
        click.Option(["--labels"], help="Sample by `ddo sample`, with these classes: uniform, dataset:PATH or a list."),
        click.Option(["--trust"], is_flag=True, help="Run the code that a network's file carries."),
    ]

    def add(function: Any) -> Any:
        function.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(made)]
        return function

    return add


def evaluate(
    judge: Judge,
    judge_samples: JudgeSamples,
    *,
    known: Sequence[str],
    reads: Sequence[str],
    network: str,
    out: Path,
    ref: str,
    checkout: Path,
    metrics: str,
    seeds: Sequence[int],
    trust: bool,
    sampler: str,
    **options: Any,
) -> None:
    """Judge what `network` names and write {"score", "metrics", "by_seed", ...} to `out`.

    Of upstream's script, `known` are the metrics and `reads` the suffixes of statistics that it reads.
    """
    chosen = _metrics(metrics, known)
    opened = open_checkout(checkout)
    check_place(out)
    standard = open_standard(ref)  # a damaged file is found here, not after 50,000 samples
    if standard.moments and Path(ref).suffix.lower() not in reads:
        raise UserError(
            f"--ref={ref}: the script of {opened.upstream.title} reads statistics as {' or '.join(reads)} alone"
        )
    for name in chosen:
        if name not in standard.moments:
            raise UserError(
                f"--ref={ref} has no statistics of {name}; those of your data: upstream's script with `ref`"
            )
    path = Path(network) if Path(network).is_dir() else local_file(network)
    job = Job(path, out, opened, ref, metrics=chosen, sampler=tuple(shlex.split(sampler)), trust=trust, **options)
    if is_network(path):
        for loaded in (path, *([] if trust else map(local_file, sampler_networks(job.sampler)))):
            refuse_foreign_code(loaded, opened, trust)
        found = _judge_network(job, judge if job.labels is None else _by_our_samples(judge_samples), seeds)
    else:
        _check_count(job)
        found = [{"seed": seeds[0], **_judge_samples(job, judge_samples, seeds[0])}]
    _write(job, found, network, standard.description)


def is_network(path: Path) -> bool:
    """Whether this is a network's file rather than samples."""
    return path.is_file() and path.suffix == ".pkl"


def refuse_foreign_code(path: Path, checkout: Checkout, trust: bool) -> None:
    """Upstream's scripts run the source that a pickle carries; unasked they may run the checkout's own alone."""
    from ddo_plugin.snapshots.pickles import contents

    if trust:
        return
    found = contents.describe(path, checkout=checkout.root)
    if missing := contents.missing_module(found, checkout.root):
        raise UserError(f"{path}: {missing}; name the checkout of the network's own upstream by --checkout")
    foreign = [", ".join(source.classes) for source in found.sources if source.local is None]
    why = found.damage or (found.refusals and found.refusals[0]) or (foreign and f"its own source of {foreign[0]}")
    if why:
        raise UserError(
            f"{path}: {checkout.upstream.title}'s scripts would run what it carries, which is not all of this checkout "
            f"({why}); if you trust whoever made it: --trust"
        )


def sampler_networks(arguments: Sequence[str]) -> list[str]:
    """Paths and URLs of the networks that arguments for the sampler name, as `--gnet=X` or `--gnet X`."""
    following = [*arguments[1:], ""]
    pairs = [
        one.partition("=")[::2] if "=" in one else (one, after)
        for one, after in zip(arguments, following, strict=False)
    ]
    return [value for name, value in pairs if name in NETWORKS and value]


def named_numbers(printed: str, names: Sequence[str]) -> dict[str, float]:
    """The values of lines `name = value`."""
    return {name: _number(printed, rf"^{re.escape(name)} = (\S+)$", name) for name in names}


def last_number(printed: str, name: str) -> float:
    """The value of the last line that is a number and nothing else."""
    return _number(printed, r"^([-+.\deE]+|nan|inf)$", name)


def _number(printed: str, pattern: str, name: str) -> float:
    try:
        return float(re.findall(pattern, printed, re.MULTILINE)[-1])
    except (IndexError, ValueError):
        raise UserError(f"upstream's script printed no {name}; what it said stands above") from None


def _judge_network(job: Job, judge: Judge, seeds: Sequence[int]) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    with progress("evaluation", len(seeds)) as bar:
        for seed in seeds:
            found.append({"seed": seed, **judge(job, seed)})
            bar.update()
    return found


def _by_our_samples(judge_samples: JudgeSamples) -> Judge:
    """A judge who has `ddo sample` make the images, whose classes upstream's samplers would draw."""

    def judge(job: Job, seed: int) -> Mapping[str, float]:
        with scratch_folder(job) as folder:
            job.sample(job.image_seeds(seed), folder)
            return judge_samples(job, folder, seed)

    return judge


def _check_count(job: Job) -> None:
    """Fewer would be found by the script after they are unpacked, and unpacked they are alone."""
    if _is_read_by_scripts(job.what):
        return
    count = len(read_images(job.what))
    if count < job.num:
        raise UserError(f"{job.what}: it has {count:,} samples, fewer than --num={job.num:,}; add --num={count}")


def _is_read_by_scripts(samples: Path) -> bool:
    """A folder of pictures, which is no reference set, or a zip."""
    return (samples.is_dir() and not (samples / refset.MANIFEST).exists()) or samples.suffix == ".zip"


def _judge_samples(job: Job, judge_samples: JudgeSamples, seed: int) -> Mapping[str, float]:
    """A reference set or an .npz is unpacked for the script, which reads pictures alone."""
    if _is_read_by_scripts(job.what):
        return judge_samples(job, job.what, seed)
    with scratch_folder(job) as folder:
        _unpack(job.what, folder)
        return judge_samples(job, folder, seed)


def _unpack(samples: Path, folder: Path) -> None:
    images = read_images(samples)
    try:
        from PIL import Image
    except ImportError:
        raise UserError(f"{samples}: writing its pictures needs pillow: pip install pillow") from None
    with progress("pictures", len(images)) as bar:
        for batch in images.batches(1000):
            part = folder / f"{bar.done:06d}"
            part.mkdir()
            for number, image in enumerate(batch, bar.done):
                Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(part / f"{number:06d}.png")
            bar.update(len(batch))


@contextlib.contextmanager
def scratch_folder(job: Job) -> Iterator[Path]:
    """An empty folder beside the output, gone when the block ends; one that a kill left behind is emptied."""
    shutil.rmtree(job.scratch, ignore_errors=True)
    job.scratch.mkdir(parents=True)
    try:
        yield job.scratch
    finally:
        shutil.rmtree(job.scratch, ignore_errors=True)


def _write(job: Job, found: Sequence[Mapping[str, float]], source: str, reference: Mapping[str, Any]) -> None:
    root = job.checkout.root
    judged = {"source": source, "sha256": digest(job.what)}
    value = {
        **(told := combine_seeds(found, job.metrics)),
        "count": job.num,
        "network" if is_network(job.what) else "samples": judged,
        "reference": reference,
        "checkout": {"upstream": job.checkout.upstream.name, "folder": str(root), "commit": commit(root)},
        "commands": job.commands,
        "versions": environment.versions(),
    }
    click.echo("\n".join(f"{name}  {value:.6g}" for name, value in told["metrics"].items()))
    write_result(job.out, value)


def _run(command: Command) -> tuple[str, int]:
    env = {**os.environ, **command.env}
    env.setdefault(
        "MASTER_PORT", str(environment.free_port())
    )  # EDM takes 29500 for a single process, whoever else has it
    lines = []
    with subprocess.Popen(
        command.argv, env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", file=sys.stderr, flush=True)
                lines.append(line)
        except BaseException:
            process.terminate()
            raise
    return "".join(lines), process.returncode


def _metrics(text: str, known: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in chosen:
        if name not in known:
            raise UserError(f"--metrics={text}: upstream computes {', '.join(known)}, not {name!r}")
    return chosen
