"""What a command's options make of a solver, on a mixture that has a closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.sampling.options import sampler_options
from ddo_plugin.sampling.sampler import Sampler
from ddo_plugin.sampling.solvers import dpm_solver_v3
from ddo_plugin.sampling.solvers.noise_levels import noise_steps
from tests.sampling.solvers.mixture import Mixture

MIXTURE, SHAPE = Mixture(), (1, 8, 8)
V3 = "--solver=dpm-solver-v3"


class Counted:
    """The mixture's ideal denoiser; keeps the noise levels that it is asked at."""

    def __init__(self) -> None:
        self.sigmas: list[float] = []

    def __call__(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        self.sigmas.append(float(sigma.flatten()[0]))
        return MIXTURE(noisy, sigma)


def read(*arguments: str, supported: tuple[float, float] | None = None) -> Sampler:
    command = click.Command("options", params=list(sampler_options(32)))
    return Sampler.of(command.make_context("", list(arguments)).params, SHAPE, supported)


def solve(sampler: Sampler, denoise: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    """Latents, and the samples that they become."""
    streams = SampleGenerators(0, range(16))
    latents = streams.randn(*SHAPE)
    return latents, sampler.solve(denoise, latents, streams, **{"dtype": torch.float32, **settings})


def error(sampler: Sampler, to: float) -> float:
    latents, made = solve(sampler, MIXTURE)
    return float((made - MIXTURE.transport(latents * 80, 80, to)).square().mean().sqrt())


def test_25_steps_of_dpm_solver_v3_are_25_evaluations_down_to_sigma_min_as_in_the_release() -> None:
    denoise = Counted()
    latents, made = solve(read(V3, "--steps=25"), denoise)
    levels = noise_steps(25, to_zero=False)
    assert denoise.sigmas == pytest.approx(levels[:-1].tolist(), rel=1e-6)
    torch.testing.assert_close(made, dpm_solver_v3.sample(MIXTURE, latents, levels).float(), rtol=0, atol=0)


def test_at_equal_evaluations_dpm_solver_v3_is_nearer_to_the_solution_than_heun() -> None:
    """25 of each: 13 steps of Heun, the last one of order 1."""
    assert error(read(V3, "--steps=25"), to=0.002) < error(read("--steps=13"), to=0) / 4


@pytest.mark.parametrize("flag", ["--order=3", "--order=1", "--spacing=logSNR"])
def test_order_and_spacing_change_the_samples_and_are_recorded(flag: str) -> None:
    other = read(V3, "--steps=12", flag)
    assert (solve(other, MIXTURE)[1] - solve(read(V3, "--steps=12"), MIXTURE)[1]).abs().max() > 1e-4
    name, value = flag.removeprefix("--").split("=")
    assert str(other.settings()[name]) == value


def test_settings_name_what_has_an_effect_and_nothing_else() -> None:
    common = {"steps": 32, "sigma_min": 0.002, "sigma_max": 80.0}
    assert read().settings() == {"name": "heun", **common, "rho": 7.0}
    told = {"name": "dpm-solver-v3", **common, "rho": 7.0, "order": 2, "spacing": "edm"}
    assert read(V3).settings() == told
    assert "rho" not in read(V3, "--spacing=logSNR").settings()


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    """Those of the training-free setting, where the authors' names would put them."""
    folder = tmp_path / "0.002_80.0_200_64"
    folder.mkdir()
    ones = np.ones((201, *SHAPE))
    np.savez(folder / "l.npz", l=ones)
    np.savez(folder / "sb.npz", s=0 * ones, b=0 * ones)
    return folder


def test_statistics_take_part_and_are_recorded_by_their_sha256(statistics: Path) -> None:
    sampler = read(V3, "--steps=12", f"--statistics={statistics}")
    plain = solve(read(V3, "--steps=12"), MIXTURE)[1]
    assert (solve(sampler, MIXTURE)[1] - plain).abs().max() < 1e-5
    files = [statistics / "l.npz", statistics / "sb.npz"]
    assert sampler.settings()["statistics"] == {str(file): sha256_file(file) for file in files}
    np.savez(statistics / "l.npz", l=np.full((201, *SHAPE), 0.5))
    bent = solve(read(V3, "--steps=12", f"--statistics={statistics}"), MIXTURE)[1]
    assert (bent - plain).abs().max() > 1e-3


def test_statistics_that_do_not_fit_are_refused_before_anything_is_sampled(statistics: Path) -> None:
    with pytest.raises(UserError, match=r"cover σ from 0\.002 to 80, but the noise levels go from 0\.001"):
        read(V3, f"--statistics={statistics}", "--sigma-min=0.001")
    narrow = statistics.rename(statistics.with_name("0.002_40.0_200_64"))
    with pytest.raises(UserError, match=r"cover σ from 0\.002 to 40"):
        read(V3, f"--statistics={narrow}")
    for name, arrays in {"l": ["l"], "sb": ["s", "b"]}.items():
        np.savez(narrow / f"{name}.npz", **{array: np.ones((201, 3, 8, 8)) for array in arrays})
    with pytest.raises(UserError, match=r"have the shape \(3, 8, 8\), but the network's samples have \(1, 8, 8\)"):
        read(V3, f"--statistics={narrow}", "--sigma-max=40")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--order=3"], "--order needs --solver=dpm-solver-v3, but the solver is heun"),
        (["--solver=euler", "--spacing=logSNR"], "--spacing needs --solver=dpm-solver-v3, but the solver is euler"),
        ([V3, "--S_churn=1"], "--S_churn adds noise"),
        (["--sigma-min=2", "--sigma-max=1"], "--sigma-min=2 must be below --sigma-max=1"),
        (["--rho=0.001"], "--rho=0.001 is too small: 80\\^"),
    ],
)
def test_options_that_contradict_each_other_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(*flags)


def test_levels_stay_within_those_that_a_network_supports() -> None:
    sampler = read(supported=(0.02, 50))
    assert (sampler.sigma_min, sampler.sigma_max) == (0.02, 50)


def test_more_levels_than_a_network_can_tell_apart_are_refused() -> None:
    """Networks of iDDPM know a thousand; two of ours would be one, and a step between them would have no width."""
    with pytest.raises(UserError, match="--steps=40: the network cannot distinguish so many noise levels"):
        solve(read(V3, "--steps=40"), MIXTURE, round_sigma=lambda sigma: (sigma * 10).ceil() / 10)
