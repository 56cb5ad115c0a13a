"""Every shipped recipe's commands, as self-play builds them, in the hands of the real scripts; files are stand-ins."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib.resources import as_file
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.cli import main
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import RoundStep
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.selfplay.recipe.load import Recipe, load
from ddo_plugin.selfplay.recipe.plan import Round
from ddo_plugin.selfplay.recipe.shipped import shipped
from tests.processes import run_python

CHECKOUTS = {"edm": "edm", "edm2": "edm2", "var": "VAR"}
MAKE = Path(__file__).with_name("make_stand_ins.py")
STAND_INS = Path(__file__).parent / "var/stand_ins"
PARSE = """
import sys
from utils.arg_util import Args
args = Args(explicit_bool=True).parse_args(sys.argv[1:], known_only=True)
print(args.extra_args, args.depth, args.bs, args.ac, args.tblr, args.alng, args.fp16, args.wpe, args.twde)
"""
LAST_CLASS = {"edm-cifar10-uncond": None, "edm-cifar10-cond": 9, "edm2-img64-s": 999, "edm2-img512-l": 999}


def upstream_of(name: str) -> str:
    return name.removeprefix("neon-").split("-")[0]


def opened(name: str, checkout, *overrides: str) -> Recipe:
    """A shipped recipe on this machine: one process, our checkout."""
    known = upstream_of(name) in CHECKOUTS
    launch = [f"launch.checkout={checkout(CHECKOUTS[upstream_of(name)])}", "launch.torchrun="] if known else []
    with as_file(shipped()[name]) as file:
        return load(file, [*launch, *overrides])


def write_data(path: Path, shape: tuple[int, int, int], last_class: int | None) -> None:
    """Two images, or latents, of the first and the last class, as upstream's tools pack them."""
    image = pytest.importorskip("PIL.Image")
    channels = shape[0]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2):
            buffer = io.BytesIO()
            if channels == 3:
                image.fromarray(np.zeros((*shape[1:], 3), np.uint8)).save(buffer, "png")
            else:
                np.save(buffer, np.zeros(shape, np.float32))
            archive.writestr(f"{number}.png" if channels == 3 else f"{number}.npy", buffer.getvalue())
        suffix = "png" if channels == 3 else "npy"
        labels = None if last_class is None else [[f"0.{suffix}", 0], [f"1.{suffix}", last_class]]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


@pytest.fixture(scope="module")
def networks(checkout, completed, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Tiny networks that take what the published ones take, by the recipe's name."""
    for needed in ("PIL", "scipy", "requests"):
        pytest.importorskip(needed)
    out = tmp_path_factory.mktemp("networks")
    for upstream in ("edm", "edm2"):
        completed(started([sys.executable, str(MAKE), upstream, str(out)], out, path=str(checkout(upstream))))
    return {path.stem: path for path in out.glob("*.pkl")}


def dry_run(recipe: Recipe, this: Round, number: int, reference: Path, fakes: Path, out: Path) -> dict[str, Any]:
    """The configuration that upstream prints for round `number`."""
    first, seed = this.candidates[0], recipe.seed + number
    step = RoundStep(
        *(recipe.upstream, reference, fakes if first.needs_fakes else None, out),
        *(first.objective, first.alpha, first.beta, seed, this.training),
    )
    command = plugins.manager().hook.ddo_round_command(step=step)
    done = started([*command.argv, "--dry-run"], out.parent, **command.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not out.exists()
    printed = done.stdout
    config: dict[str, Any] = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]
    return config


@pytest.fixture
def configured(networks, checkout, tmp_path):
    """A function: recipe's name, round -> upstream's configuration of that round, from the recipe's own command.

    With `control=True`, it is that of the same round of the control.
    """

    def run(name: str, number: int, control: bool = False) -> dict[str, Any]:
        of = name.removeprefix("neon-")
        latent = name == "edm2-img512-l"
        side = 32 if "cifar10" in name else 64
        last = LAST_CLASS[of]
        write_data(tmp_path / "data.zip", (8 if latent else 3, side, side), last)
        fakes, network = tmp_path / "fakes", networks[of]
        samples = np.zeros((2, 4 if latent else 3, side, side), np.float32 if latent else np.uint8)
        labels = None if last is None else np.array([0, last])
        made_by = {"source": str(network), "sha256": sha256_file(network)}
        refset.write(fakes, samples, labels, kind="images", reference=made_by, sampler={}, seed=0)
        recipe = opened(name, checkout, f"training.data={tmp_path / 'data.zip'}")
        plan = recipe.plan(network)
        this = (plan.control() if control else plan).at(number)
        return dry_run(recipe, this, number, network, fakes, tmp_path / "out")

    return run


@pytest.mark.parametrize("name", list(shipped()))
def test_every_recipe_passes_ddo_validate_against_upstreams_source(name: str, checkout) -> None:
    known = upstream_of(name) in CHECKOUTS
    where = [f"--set=launch.checkout={checkout(CHECKOUTS[upstream_of(name)])}"] if known else []
    with as_file(shipped()[name]) as file:
        done = CliRunner().invoke(main, ["validate", str(file), *where])
    assert done.exit_code == 0, done.output
    assert "not checked" not in done.output


@pytest.mark.parametrize("name", ["edm-cifar10-cond", "edm2-img64-s"])
def test_a_recipe_may_compile_the_networks(name: str, checkout) -> None:
    recipe = opened(name, checkout, "training.ddo-compile=true")
    this = recipe.rounds[0]
    step = RoundStep(recipe.upstream, Path("a.pkl"), Path("fakes"), Path("out"), "ddo", 4.0, 0.05, 1, this.training)
    assert "--ddo-compile" in plugins.manager().hook.ddo_round_command(step=step).argv


def test_a_recipe_of_var_is_told_of_vars_own_option(checkout) -> None:
    with pytest.raises(UserError, match=r"training\.ddo-compile: cannot be set here; set tfast, VAR's own option"):
        opened("var-d16", checkout, "training.ddo-compile=true")


@pytest.mark.parametrize("name", ["edm-cifar10-uncond", "edm-cifar10-cond"])
def test_edm_takes_the_recipes_command_and_its_configuration_is_the_papers(name: str, configured) -> None:
    config = configured(name, 1)
    assert (config["total_kimg"], config["lr_rampup_kimg"], config["batch_size"]) == (1500, 1500, 512)
    assert (config["optimizer_kwargs"]["lr"], config["ema_halflife_kimg"], config["kimg_per_tick"]) == (1.5e-4, 250, 50)
    assert config["augment_kwargs"]["p"] == 0.12
    assert config["snapshot_ticks"] == 1
    assert config["seed"] == 1


@pytest.mark.parametrize("name", ["neon-edm-cifar10-uncond", "neon-edm-cifar10-cond"])
def test_edm_takes_the_command_of_neon_and_its_configuration_is_that_of_its_authors(name: str, configured) -> None:
    config = configured(name, 1)
    assert (config["total_kimg"], config["lr_rampup_kimg"], config["batch_size"]) == (6000, 10000, 512)
    assert (config["optimizer_kwargs"]["lr"], config["ema_halflife_kimg"], config["kimg_per_tick"]) == (1e-4, 500, 50)
    assert (config["augment_kwargs"]["p"], config["network_kwargs"]["dropout"]) == (0.12, 0.13)
    assert config["snapshot_ticks"] == 10


@pytest.mark.parametrize("name", ["edm-cifar10-cond", "edm2-img64-s", "neon-edm-cifar10-cond"])
def test_upstream_takes_the_command_of_a_control(name: str, configured) -> None:
    assert configured(name, 1, control=True)["network_kwargs"].get("dropout", 0) == 0


def test_edm2_takes_the_recipes_command_and_its_configuration_is_the_papers(configured) -> None:
    config = configured("edm2-img64-s", 16)
    assert (config["total_nimg"], config["batch_size"], config["snapshot_nimg"]) == (6_400_000, 512, 2**17)
    assert config["lr_kwargs"]["ref_lr"] == 5e-5
    assert (config["lr_kwargs"]["ref_batches"], config["lr_kwargs"]["rampup_Mimg"]) == (2000, 1)
    assert config["ema_kwargs"]["stds"] == [0.05]
    assert config["loss_kwargs"]["noise"] == {"P_mean": -0.8, "P_std": 1.6, "sigma_data": 0.5}


def test_from_round_17_on_edm2_gets_other_noise_levels_and_another_learning_rate(configured) -> None:
    config = configured("edm2-img64-s", 17)
    assert (config["lr_kwargs"]["ref_lr"], config["loss_kwargs"]["noise"]["P_std"]) == (2e-5, 3)
    assert config["loss_kwargs"]["noise"]["P_mean"] == -0.8


@pytest.mark.parametrize(
    ("number", "P_std", "lr"), [(12, 1.6, 5e-5), (13, 2.0, 5e-5), (21, 3.0, 2e-5), (28, 3.0, 2e-5)]
)
def test_edm2_takes_the_recipes_command_for_latents(number: int, P_std: float, lr: float, configured) -> None:
    config = configured("edm2-img512-l", number)
    assert config["loss_kwargs"]["noise"] == {"P_mean": -0.4, "P_std": P_std, "sigma_data": 0.5}
    assert config["lr_kwargs"]["ref_lr"] == lr


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("var-d16", "[] 16 1024 8 1e-06 0.001 1 0.1 0"),
        ("var-d30", "[] 30 1024 32 1e-06 0.001 1 0.1 0.08"),
        ("neon-var-d16", "[] 16 768 1 3.3333333e-06 1e-05 1 0.01 0"),
    ],
)
def test_vars_parser_takes_the_recipes_command(name: str, parsed: str, checkout, completed, refused, tmp_path) -> None:
    """It has no dry run: the round ends where its data, which are not there, are looked for."""
    for needed in ("tap", "pytz", "huggingface_hub", "tensorboard"):
        pytest.importorskip(needed)
    recipe = opened(name, checkout, f"training.data_path={tmp_path}")
    this = recipe.rounds[0]
    first = this.candidates[0]
    setting = (first.objective, first.alpha, first.beta)
    step = RoundStep("var", tmp_path / "a.pth", None, tmp_path / "out", *setting, 1, this.training)
    command = plugins.manager().hook.ddo_round_command(step=step)
    line = refused(started(command.argv, tmp_path, **command.env))
    assert (
        line
        == f"Error: --data_path={tmp_path} has no folder train to train on; create it, or link it to another folder"
    )

    native = [flag for flag in command.argv[command.argv.index("--") + 1 :] if not flag.startswith("--ddo")]
    done = started([sys.executable, "-c", PARSE, *native], recipe.checkout)  # which is a git repository, as it wants
    assert completed(done).splitlines()[-1] == parsed


def started(argv: Sequence[str], folder: Path, path: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """In an empty environment but for what keeps it on the CPU, without torchvision if there is none."""
    found = {
        "PYTHONPATH": os.pathsep.join(filter(None, [path, str(STAND_INS)])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/usr/bin:/bin",
    }
    cpu = {"OMP_NUM_THREADS": "1", "DDO_DEVICE": "cpu", "DDO_CACHE": str(folder / "cache")}
    assert argv[0] == sys.executable
    return run_python(argv[1:], cwd=folder, env={**found, **cpu, **env})
