"""Evaluate a network, or its samples, with its own upstream's scripts, and write what they print as JSON.

An integration's `evaluate` module says which scripts these are and how to read them; the rest is here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ddo_plugin import (
    EVALUATION_SAMPLES,
    MOST_EVALUATIONS,
    Checkout,
    Command,
    Contents,
    IntegerList,
    Place,
    ShellWords,
    Standard,
    UserError,
    atomic_write,
    check_elsewhere,
    check_place,
    checkout_command,
    combine_seeds,
    describe_pickle,
    flags,
    free_port,
    git_commit,
    image_set_sha256,
    is_refset,
    local_file,
    missing_network_module,
    module_command,
    open_checkout,
    open_standard,
    package_versions,
    progress,
    read_images,
    torchrun_launcher,
    write_network,
    write_result,
    write_statistics,
)

FEATURES = "inception"
DIVERSITY = ("precision", "recall")
NETWORKS = ("--net", "--gnet", "--network")  # options of the samplers whose value is unpickled


@dataclass(frozen=True)
class Request:
    """What to evaluate, and how."""

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
    real: str | None = None  # real images, with which precision and recall are measured
    features: str = FEATURES  # of precision and recall

    def beside(self, what: str) -> Path:
        """Return a hidden path beside the output, for a folder that is needed only while this runs."""
        return self.out.absolute().with_name(f".{self.out.name}.{what}")

    def image_seeds(self, seed: int) -> range:
        """Return the image seeds of an evaluation seed: separate blocks, as EDM's 0-49999, 50000-99999, ..."""
        return range(seed * self.num, (seed + 1) * self.num)


class Job:
    """Runs the commands of an evaluation, and keeps their command lines for the record."""

    def __init__(self, request: Request, originals: Mapping[str, str]):
        self.request = request
        self.originals = originals  # copy -> the user's file, which the record names
        self.commands: list[str] = []

    def run(self, script: str, *arguments: str) -> str:
        """Run a script of the checkout, shown on stderr, and return what it prints."""
        checkout = self.request.checkout
        command = checkout_command(checkout, script, arguments, torchrun_launcher(self.request.torchrun))
        self._record(script, *arguments)
        printed, status = _run(command)
        if status != 0:
            raise UserError(f"{script} of {checkout.root} ended with status {status}; see its output above")
        return printed

    def generate(self, script: str, option: str, seed: int, folder: Path) -> None:
        """Make images with upstream's sampler, which takes the network as `option` and draws the classes."""
        request, seeds = self.request, self.request.image_seeds(seed)
        named = {option: request.what, "outdir": folder, "seeds": f"{seeds[0]}-{seeds[-1]}", "batch": request.batch}
        self.run(script, "--subdirs", *flags(named), *request.sampler)

    def sample(self, seeds: range, folder: Path) -> None:
        """Make images with `ddo sample`, which takes the classes from `labels`."""
        request = self.request
        images = {
            "outdir": folder,
            "labels": request.labels,
            "seeds": f"{seeds[0]}-{seeds[-1]}",
            "batch": request.batch,
        }
        network = {"checkout": request.checkout.root, "network": request.what, "ddo-trust": request.trust}
        arguments = [*flags({**network, **images, "subdirs": True, "torchrun": request.torchrun}), *request.sampler]
        self._ddo("sample", *arguments)

    def diversity(self, folder: Path) -> dict[str, float]:
        """Measure precision and recall of images with `ddo eval`, which upstream's scripts do not compute."""
        request = self.request
        out = request.beside("diversity.json")
        measured = {"ref": request.real, "metrics": "pr", "features": request.features, "out": out}
        try:
            self._ddo("eval", str(folder), *flags(measured))
            found = json.loads(out.read_text())["metrics"]
        finally:
            out.unlink(missing_ok=True)
        return {name: found[name] for name in DIVERSITY}

    def _ddo(self, command: str, *arguments: str) -> None:
        self._record("ddo", command, *arguments)
        _, status = _run(module_command("ddo_plugin", [command, *arguments]))
        if status != 0:
            raise UserError(f"`ddo {command}` ended with status {status}; see its output above")

    def _record(self, *command: str) -> None:
        line = shlex.join(command)
        for copy, original in self.originals.items():
            line = line.replace(copy, original)
        self.commands.append(line)


Judge = Callable[[Job, int], Mapping[str, float]]  # job, evaluation seed -> metrics of the network
JudgeSamples = Callable[[Job, Path, int], Mapping[str, float]]  # job, folder or zip, seed that chooses among the images


@dataclass(frozen=True)
class Scripts:
    """An upstream's evaluation scripts: what they compute and read, and how they are called."""

    metrics: tuple[str, ...]  # the default first
    reads: tuple[str, ...]  # suffixes of the files of statistics that the scripts read, the most general first
    sampler: tuple[str, str]  # the script that makes images, and its option for the network
    judge_samples: JudgeSamples
    judge_directly: Judge | None = None  # without images, where upstream has a script for this
    beside: Callable[[Path, Contents], Mapping[str, Any]] = (
        lambda *_: {}
    )  # what they read of a snapshot but the network


def evaluation_options(metrics: Sequence[str]) -> list[click.Parameter]:
    """Return the options of an `evaluate` module; `metrics` are those that upstream computes, the default first."""
    return [
        click.Option(
            ["--network"], required=True, metavar="PKL|URL|SAMPLES", help="Network to evaluate, or its samples."
        ),
        click.Option(["--out"], type=Place(dir_okay=False), required=True, help="JSON file to write."),
        click.Option(["--ref"], required=True, metavar="NPZ|PKL|URL", help="Statistics of the real images."),
        click.Option(
            ["--checkout"],
            type=Place(file_okay=False),
            default=".",
            show_default=True,
            help="Checkout of the upstream.",
        ),
        click.Option(
            ["--metrics"],
            default=metrics[0],
            show_default=True,
            help=f"Metrics to compute, separated by commas: {', '.join(metrics)}. The first is the score.",
        ),
        click.Option(
            ["--num"],
            type=click.IntRange(min=2),
            default=EVALUATION_SAMPLES,
            show_default=True,
            help="Number of samples for each seed.",
        ),
        click.Option(
            ["--seeds"],
            type=IntegerList(MOST_EVALUATIONS),
            default="0",
            show_default=True,
            help="Evaluation seeds, separated by commas. Seed k uses the image seeds k·num to (k+1)·num − 1.",
        ),
        click.Option(["--batch"], type=click.IntRange(min=1), default=64, show_default=True, help="Batch size."),
        click.Option(
            ["--torchrun"],
            type=ShellWords(),
            metavar="OPTIONS",
            help="Start the scripts with torchrun and these options.",
        ),
        click.Option(
            ["--sampler"], type=ShellWords(), default="", metavar="ARGS", help="Extra arguments for upstream's sampler."
        ),
        click.Option(
            ["--labels"],
            help="Sample with `ddo sample` and these classes: uniform, dataset:PATH or a list.  [default: drawn by "
            "upstream's sampler]",
        ),
        click.Option(
            ["--trust"],
            is_flag=True,
            help="Give the network's file to upstream's scripts as it is. They run the code in it.",
        ),
        click.Option(
            ["--real"],
            metavar="IMAGES",
            help="Real images: a folder, zip or .npz. Precision and recall of the generated images against them are "
            "measured with `ddo eval`.",
        ),
        click.Option(["--features"], help=f"Feature extractor of precision and recall.  [default: {FEATURES}]"),
    ]


def evaluate(scripts: Scripts, options: Mapping[str, Any]) -> None:
    """Evaluate the network or samples that the options name, and write {"score", "metrics", "by_seed", ...}."""
    metrics, seeds = _metrics(options["metrics"], scripts.metrics), options["seeds"]
    source, ref, trust = options["network"], options["ref"], options["trust"]
    checkout = open_checkout(options["checkout"])
    check_place(options["out"])
    standard = open_standard(ref)  # finds a damaged file now instead of after 50,000 samples
    if standard.moments and Path(ref).suffix.lower() not in scripts.reads:
        raise UserError(
            f"--ref={ref}: the script of {checkout.upstream.title} reads statistics from {' or '.join(scripts.reads)} "
            "files only"
        )
    for name in metrics:
        if name not in standard.moments:
            raise UserError(
                f"--ref={ref} has no statistics for {name}; to create them, run upstream's script with `ref`"
            )
    path = Path(source) if Path(source).is_dir() else local_file(source)
    real = _check_diversity(path, options)
    request = Request(
        what=path,
        out=options["out"],
        checkout=checkout,
        ref=ref,
        num=options["num"],
        metrics=metrics,
        batch=options["batch"],
        torchrun=options["torchrun"],
        sampler=tuple(shlex.split(options["sampler"])),
        labels=options["labels"],
        trust=trust,
        real=options["real"],
        features=options["features"] or FEATURES,
    )
    with empty_folder(request.beside("files")) as folder:
        job = Job(*hand_over(request, scripts, standard, folder))
        if is_network(path):
            scores = _judge_network(job, scripts, seeds)
        else:
            _check_count(request)
            scores = [{"seed": seeds[0], **_judge_samples(job, scripts.judge_samples, seeds[0])}]
    _write(request, job.commands, scores, source, {"reference": standard.description, **real})


def _check_diversity(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse now what `ddo eval` would refuse after all images are made. Return what was measured, for the record."""
    real, features = options["real"], options["features"] or FEATURES
    if real is None:
        if options["features"]:
            raise UserError("--features applies to the metrics of this package only; drop it, or add --real")
        remedy = "add --real=IMAGES" if is_network(path) else f"`ddo eval {path} --ref=IMAGES --metrics=pr` measures it"
        click.echo(f"ddo: recall is not measured, because upstream's scripts do not compute it; {remedy}", err=True)
        return {}
    if not is_network(path):
        raise UserError(
            f"--real applies to networks only; measure {path} with `ddo eval {path} --ref={real} --metrics=pr`"
        )
    check_elsewhere(options["num"], ["pr"], features, real)
    return {"real": open_standard(real).description, "features": {"name": features}}


def is_network(path: Path) -> bool:
    """Return whether a path is a network's file rather than samples."""
    return path.is_file() and path.suffix == ".pkl"


def hand_over(request: Request, scripts: Scripts, standard: Standard, folder: Path) -> tuple[Request, dict[str, str]]:
    """Return the request with files that the scripts may unpickle, and each such file's original.

    They hold what was read safely from the user's files. With --trust, networks are handed over as they are.
    """
    originals: dict[str, str] = {}

    def copied(source: str) -> str:
        copy = folder / f"{len(originals)}.pkl"
        _write_network(local_file(source), copy, request.checkout, scripts)
        originals[str(copy)] = source
        return str(copy)

    statistics = folder / f"ref{scripts.reads[0]}"
    write_statistics(standard.moments, statistics)
    handed = dataclasses.replace(request, ref=str(statistics))
    if is_network(request.what) and not request.trust:
        sampler = with_networks(request.sampler, copied)
        handed = dataclasses.replace(handed, what=Path(copied(str(request.what))), sampler=sampler)
    return handed, {**originals, str(statistics): request.ref}


def _write_network(source: Path, copy: Path, checkout: Checkout, scripts: Scripts) -> None:
    contents = describe_pickle(source)
    if missing := missing_network_module(contents, checkout.root):
        raise UserError(f"{source}: {missing}; pass the checkout of the network's own upstream with --checkout")
    if not write_network(source, copy, checkout, lambda: scripts.beside(source, contents)):
        click.echo(f"ddo: {source} carries source that differs from the checkout's; the checkout's is used", err=True)


def with_networks(arguments: Sequence[str], copied: Callable[[str], str]) -> tuple[str, ...]:
    """Return the sampler's arguments with other files for the networks in them, `--gnet=X` or `--gnet X`."""
    changed: list[str] = []
    follows = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if follows:
            argument = copied(argument)
        elif name in NETWORKS and value:
            argument = f"{name}={copied(value)}"
        follows = name in NETWORKS and not equals and not follows
        changed.append(argument)
    return tuple(changed)


def named_numbers(printed: str, names: Sequence[str]) -> dict[str, float]:
    """Return the values of lines `name = value`."""
    return {name: _number(printed, rf"^{re.escape(name)} = (\S+)$", name) for name in names}


def last_number(printed: str, name: str) -> float:
    """Return the value of the last line that is a number and nothing else."""
    return _number(printed, r"^([-+.\deE]+|nan|inf)$", name)


def _number(printed: str, pattern: str, name: str) -> float:
    try:
        return float(re.findall(pattern, printed, re.MULTILINE)[-1])
    except (IndexError, ValueError):
        raise UserError(f"upstream's script printed no {name}; see its output above") from None


def _judge_network(job: Job, scripts: Scripts, seeds: Sequence[int]) -> list[dict[str, float]]:
    request = job.request
    directly = None if request.labels is not None or request.sampler or request.real else scripts.judge_directly
    scores: list[dict[str, float]] = []
    with progress("evaluation", len(seeds)) as bar:
        for seed in seeds:
            found = directly(job, seed) if directly else _judge_images(job, scripts, seed)
            scores.append({"seed": seed, **found})
            bar.update()
    return scores


def _judge_images(job: Job, scripts: Scripts, seed: int) -> dict[str, float]:
    """Make images, with `ddo sample` if their classes are chosen, and judge them."""
    request = job.request
    with scratch_folder(job) as folder:
        if request.labels is None:
            job.generate(*scripts.sampler, seed, folder)
        else:
            job.sample(request.image_seeds(seed), folder)
        diversity = job.diversity(folder) if request.real else {}
        return {**scripts.judge_samples(job, folder, seed), **diversity}


def _check_count(request: Request) -> None:
    """Refuse too few samples before they are unpacked; the script itself counts those that it reads directly."""
    if _is_read_by_scripts(request.what):
        return
    count = len(read_images(request.what))
    if count < request.num:
        raise UserError(f"{request.what} has {count:,} samples, fewer than --num={request.num:,}; add --num={count}")


def _is_read_by_scripts(samples: Path) -> bool:
    """Return whether upstream's scripts read these samples: a folder of pictures or a zip, but no reference set."""
    return (samples.is_dir() and not is_refset(samples)) or samples.suffix == ".zip"


def _judge_samples(job: Job, judge_samples: JudgeSamples, seed: int) -> Mapping[str, float]:
    """Judge samples; a reference set or an .npz is unpacked to pictures first, which is all that the scripts read."""
    samples = job.request.what
    if _is_read_by_scripts(samples):
        return judge_samples(job, samples, seed)
    with scratch_folder(job) as folder:
        _unpack(samples, folder)
        return judge_samples(job, folder, seed)


def _unpack(samples: Path, folder: Path) -> None:
    images = read_images(samples)
    try:
        from PIL import Image
    except ImportError:
        raise UserError(f"{samples}: unpacking samples needs pillow; pip install pillow") from None
    with progress("pictures", len(images)) as bar:
        for batch in images.batches(1000):
            part = folder / f"{bar.done:06d}"
            for number, image in enumerate(batch, bar.done):
                with atomic_write(part / f"{number:06d}.png", durable=False) as file:
                    Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(file, "png")
            bar.update(len(batch))


def scratch_folder(job: Job) -> contextlib.AbstractContextManager[Path]:
    """Return an empty folder for samples."""
    return empty_folder(job.request.beside("samples"))


@contextlib.contextmanager
def empty_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder and remove it afterwards, even if a kill had left it behind before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(
    request: Request,
    commands: Sequence[str],
    scores: Sequence[Mapping[str, float]],
    source: str,
    real: Mapping[str, Any],
) -> None:
    checkout = request.checkout
    summary = combine_seeds(scores, [*request.metrics, *(DIVERSITY if request.real else ())])
    value = {
        **summary,
        "count": request.num,
        "network" if is_network(request.what) else "samples": {
            "source": source,
            "sha256": image_set_sha256(request.what),
        },
        **real,
        "checkout": {
            "upstream": checkout.upstream.name,
            "folder": str(checkout.root),
            "commit": git_commit(checkout.root),
        },
        "commands": commands,
        "versions": package_versions(),
    }
    click.echo("\n".join(f"{name}  {value:.6g}" for name, value in summary["metrics"].items()))
    write_result(request.out, value)


def _run(command: Command) -> tuple[str, int]:
    """Run a command, show its output on stderr, and return the output and the exit status."""
    env = {**os.environ, **command.env}
    env.setdefault("MASTER_PORT", str(free_port()))  # EDM always takes 29500 for a single process, even if it is in use
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
            raise UserError(f"--metrics={text}: upstream does not compute {name!r}; choose from {', '.join(known)}")
    return chosen
