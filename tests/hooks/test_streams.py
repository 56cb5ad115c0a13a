"""Randomness that belongs to a sample, not to a batch."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks.streams import _STREAMS, _STRIDE, SampleGenerators

SHAPE = (3, 4, 4)


def noise(seed: int, indices: Iterable[int]) -> Tensor:
    return SampleGenerators(seed, list(indices)).randn(*SHAPE)


@pytest.mark.parametrize("batch", [1, 3, 5, 10])
def test_a_sample_does_not_depend_on_the_batch_it_is_in(batch: int) -> None:
    whole = noise(0, range(10))
    assert torch.equal(torch.cat([noise(0, indices) for indices in torch.arange(10).split(batch)]), whole)
    assert torch.equal(
        torch.cat([noise(0, range(rank, 10, 2)) for rank in (0, 1)]), whole[[0, 2, 4, 6, 8, 1, 3, 5, 7, 9]]
    )


def test_later_draws_do_not_depend_on_the_batch_either() -> None:
    together, alone = SampleGenerators(0, [3, 4]), SampleGenerators(0, [4])
    for _ in range(3):
        assert torch.equal(together.randn(5)[1], alone.randn(5)[0])
        assert torch.equal(together.rand(5)[1], alone.rand(5)[0])


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    torch.manual_seed(1)
    first, state = noise(0, range(4)), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(noise(0, range(4)), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_and_seeds_differ() -> None:
    drawn = torch.cat([noise(seed, range(20)) for seed in (0, 1, 2, 43, -1, 2**31)]).flatten(1)
    assert len(drawn.unique(dim=0)) == len(drawn)


def test_sets_of_self_play_share_no_stream() -> None:
    """Seeds of a self-play run differ by their round: below 5970 of them, sets of 660 000 samples do not meet."""
    gaps = (torch.arange(1, 5970) * _STRIDE) % _STREAMS
    assert int(torch.minimum(gaps, _STREAMS - gaps).min()) > 660_000


def test_numbers_are_standard_normal_and_uniform_across_samples() -> None:
    generators = SampleGenerators(5, range(4000))
    normal, uniform = generators.randn(2), generators.rand(2)
    assert normal.shape == uniform.shape == (4000, 2)
    for drawn, mean, deviation in [(normal, 0, 1), (uniform, 0.5, 12**-0.5)]:
        torch.testing.assert_close(drawn.mean(0), torch.full((2,), float(mean)), atol=0.06, rtol=0)
        torch.testing.assert_close(drawn.std(0), torch.full((2,), float(deviation)), atol=0.06, rtol=0)
        neighbours = torch.corrcoef(torch.stack([drawn[:-1, 0], drawn[1:, 0]]))[0, 1]
        assert abs(neighbours) < 0.06  # consecutive seeds, unrelated numbers
    assert ((uniform >= 0) & (uniform < 1)).all()


def test_dtype_is_what_was_asked_for() -> None:
    assert SampleGenerators(0, [1]).randn(2, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_is_refused_by_its_number(value: float) -> None:
    streams = SampleGenerators(0, [7, 8, 9])
    made = streams.randn(*SHAPE)
    streams.check(made)
    made[1, 2, 3, 3] = value
    with pytest.raises(UserError, match=r"sample 8 is not finite .1 of 3 in its batch.*; check both"):
        streams.check(made)
