"""The two tiny models: what they sample is what they assign likelihood to."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
import torch

from ddo_integrations.demo.families import build, load_snapshot
from ddo_integrations.demo.generator import draw
from ddo_integrations.demo.names import FAMILIES
from ddo_integrations.demo.tokens import LENGTH, VOCABULARY, split_scales
from ddo_plugin.base.progress import Progress
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.objective.ddo import DDO


@pytest.fixture(params=FAMILIES)
def loaded(request: pytest.FixtureRequest, data, base):
    family = build(request.param, data)
    return family, load_snapshot(base(request.param), request.param, family)


@pytest.fixture
def tokens(data, base):
    family = build("tokens", data)
    return family, load_snapshot(base("tokens"), "tokens", family)


@pytest.mark.parametrize("paired", [True, False])
def test_a_network_against_itself_has_log_ratio_exactly_0_and_trains_away_from_it(paired: bool, loaded) -> None:
    family, network = loaded
    samples, labels = draw(family, network, 40, 1, Progress("", 40))

    class Fakes:
        description = MappingProxyType({})

        def draw(self, count: int):
            return samples[:count], labels[:count]

    real = family.real_samples()[:40]
    terms = family.terms(network, network, real, torch.from_numpy(family.digits.labels[:40]), Fakes(), paired)
    assert terms.r_real.eq(0).all()
    assert terms.r_fake.eq(0).all()
    DDO(1.0, 0.5)(terms).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_sample_depends_on_its_seed_and_number_alone(loaded) -> None:
    family, network = loaded
    labels = torch.arange(10)
    together = family.sample(network, labels, SampleGenerators(5, range(10)))
    alone = torch.cat([family.sample(network, labels[i : i + 1], SampleGenerators(5, [i])) for i in range(10)])
    differing = (together.float() - alone.float()).abs().gt(1).float().mean()  # one grey level of rounding is allowed
    assert differing == 0
    assert not torch.equal(together, family.sample(network, labels, SampleGenerators(6, range(10))))


def test_the_sampler_draws_from_the_distribution_that_the_likelihood_describes(tokens) -> None:
    """The first token's frequencies, and the conditional ones after it, against teacher-forced probabilities."""
    family, network = tokens
    count, label = 4000, 3
    labels = torch.full((count,), label)
    drawn = family.sample(network, labels, SampleGenerators(1, range(count)))
    first = np.bincount(drawn[:, 0].numpy(), minlength=VOCABULARY) / count
    with torch.no_grad():
        head = network.get_submodule("head")(network(torch.zeros(1, 0, 4), labels[:1]))[0, 0]
        likelihood = head.softmax(0)
    assert np.abs(first - likelihood.numpy()).max() < 5 * np.sqrt(0.25 / count)
    contexts = family.tokenizer.contexts(drawn)
    with torch.no_grad():
        surprise = -family.log_likelihood(network, drawn, labels)
        logp = network.get_submodule("head")(network(contexts, labels)).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1).sum(1)  # E[−log p] = E[Σ entropies] for samples of p itself
    spread = float((surprise - entropy).std() / count**0.5)
    assert abs(float((surprise - entropy).mean())) < 4 * spread


def test_tokens_of_a_digit_render_close_to_it(tokens) -> None:
    family, _ = tokens
    codes = family.real_samples()
    assert codes.shape == (1797, LENGTH)
    assert [part.shape[1] for part in split_scales(codes)] == [1, 4, 16]
    error = (family.to_images(codes).float() - torch.from_numpy(family.digits.images).float()).square().mean().sqrt()
    assert error < 25  # of 255 grey levels


def test_a_scale_does_not_see_itself_or_finer_ones(tokens) -> None:
    _, network = tokens
    contexts = torch.randn(2, LENGTH - 1, 4)
    labels = torch.tensor([1, 2])
    with torch.no_grad():
        whole, coarse = network(contexts, labels), network(contexts[:, :4], labels)
    assert torch.allclose(whole[:, :5], coarse, atol=1e-5)
