"""The paper's theorems, exactly: a softmax over 24 states, every expectation a finite sum, everything in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import log_softmax

from ddo_plugin.objective.ddo import DDO, MLE, Outcome, Terms

STATES = 24
RATIOS = st.one_of(st.sampled_from([-1e6, -1.0, 0.0, 1.0, 1e6]), st.floats(-1e6, 1e6, width=32))
EXAMPLES = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class World:
    """A data distribution, a reference and the exact value of the objective at any model."""

    data: Tensor  # [S] probabilities
    reference: Tensor  # [S]

    def loss(self, logp: Tensor, objective: DDO) -> Tensor:
        """Eq. 13 with exact expectations: the package's per-sample losses, weighted by the probabilities."""
        r = logp - self.reference.log()
        outcome = objective(Terms(logp, r_real=r, r_fake=r))
        return (self.data * outcome.real).sum() + (self.reference * outcome.fake).sum()


def world(seed: int = 0, spread: float = 1.0) -> World:
    generator = torch.Generator().manual_seed(seed)
    data, reference = (spread * torch.randn(2, STATES, generator=generator, dtype=torch.float64)).softmax(1).unbind(0)
    return World(data, reference)


def minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    point = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point], max_iter=2000, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(point)
        value.backward()
        return value

    optimizer.step(closure)
    return point.detach()


def gradient(loss: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    point = point.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(point), point)
    return grad


def kl(p: Tensor, q: Tensor) -> float:
    return float((p * (p / q).log()).sum())


def optimum(w: World, objective: DDO) -> Tensor:
    return minimise(lambda logits: w.loss(log_softmax(logits, 0), objective), w.reference.log()).softmax(0)


# -- the optimum (Theorems 3.1 and 3.3) and the gradient (Eq. 10) ----------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_theorem_3_1_the_optimum_is_the_data_distribution(seed: int) -> None:
    w = world(seed)
    torch.testing.assert_close(optimum(w, DDO(1, 1)), w.data, rtol=1e-6, atol=1e-8)


def test_theorem_3_1_needs_alpha_and_beta_to_be_1() -> None:
    w = world()
    for alpha, beta in [(2, 1), (1, 0.5)]:
        assert kl(w.data, optimum(w, DDO(alpha, beta))) > 1e-3


@pytest.mark.parametrize("beta", [0.25, 0.5, 0.8, 1, 2])
def test_theorem_3_3_the_optimum_overshoots_the_data_at_the_normalising_alpha(beta: float) -> None:
    w = world(1)
    unnormalised = w.reference ** (1 - 1 / beta) * w.data ** (1 / beta)
    alpha, closed_form = float(unnormalised.sum() ** beta), unnormalised / unnormalised.sum()

    def loss(logits: Tensor, alpha: float = alpha) -> Tensor:
        return w.loss(log_softmax(logits, 0), DDO(alpha, beta))

    logits = closed_form.log()
    assert gradient(loss, logits).abs().max() < 1e-12
    assert gradient(lambda x: loss(x, alpha * 1.1), logits).abs().max() > 1e-5  # not at any other alpha
    torch.manual_seed(0)
    lowest = loss(logits)
    for scale in (0.01, 0.1, 1.0, 5.0):
        for _ in range(20):
            assert loss(logits + scale * torch.randn(STATES, dtype=torch.float64)) > lowest


def test_theorem_3_3_is_where_optimisation_ends() -> None:
    w, beta = world(2, spread=0.5), 0.5
    unnormalised = w.reference ** (1 - 1 / beta) * w.data ** (1 / beta)
    found = optimum(w, DDO(float(unnormalised.sum() ** beta), beta))
    torch.testing.assert_close(found, unnormalised / unnormalised.sum(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_eq_10_gradient(seed: int) -> None:
    w = world(seed)
    logits = torch.randn(STATES, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    found = gradient(lambda x: w.loss(log_softmax(x, 0), DDO(1, 1)), logits)

    model = logits.softmax(0)
    discriminator = model / (model + w.reference)  # Eq. 8
    score = torch.eye(STATES, dtype=torch.float64) - model  # row x: ∇ log p_θ(x)
    expected = ((1 - discriminator) * (model - w.data)) @ score
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(found, (model - w.data) @ score, rtol=1e-2)  # MLE's gradient is another one


# -- the bounds (Theorem 3.2) ----------------------------------------------------------------------------------------


def excess_and_constants(w: World, model: Tensor) -> tuple[float, float, float]:
    """L(θ) − L*, C₁ and C₂ of Theorem 3.2, from its assumptions as sharp as they hold."""
    objective = DDO(1, 1)
    excess = float(w.loss(model.log(), objective) - w.loss(w.data.log(), objective))
    bound = float((model / w.reference).log().abs().max())  # M
    covered = (w.data / w.reference).log()
    m1, m2 = max(float(covered.max()), 0.0), max(float(-covered.min()), 0.0)
    curvature = 2 + math.exp(bound) + math.exp(-bound)
    c1 = math.sqrt(2 * max(curvature / (1 + math.exp(-m1)), 1 + math.exp(m1)))
    c2 = math.sqrt(2 * math.exp(bound) * max(curvature / (1 + math.exp(-m2)), 1 + math.exp(m2)))
    return excess, c1, c2


def test_theorem_3_2_both_divergences_are_bounded_by_the_excess_loss() -> None:
    forward, reverse = [], []
    generator = torch.Generator().manual_seed(0)
    for seed in range(300):
        w = world(seed, spread=(0.1, 0.5, 1.5)[seed % 3])
        scale = 10 ** float(torch.empty(1).uniform_(-3, 0.5, generator=generator))
        start = (w.data if seed % 2 else w.reference).log()
        model = (start + scale * torch.randn(STATES, generator=generator, dtype=torch.float64)).softmax(0)
        excess, c1, c2 = excess_and_constants(w, model)
        assert excess > 0
        assert kl(w.data, model) >= excess  # the lower bound that needs no assumption (Eq. 24)
        forward.append(kl(w.data, model) / math.sqrt(excess) / c1)
        reverse.append(kl(model, w.data) / math.sqrt(excess) / c2)
    assert max(forward) <= 1
    assert max(reverse) <= 1


def test_theorem_3_2_leaves_little_room() -> None:
    """Two states, reference and model alike but far from the data: 0.4 times the constants would be no bounds."""
    rare, common = torch.tensor([0.1, 0.9], dtype=torch.float64), torch.tensor([0.9, 0.1], dtype=torch.float64)
    excess, c1, c2 = excess_and_constants(World(rare, common), common)
    assert 0.4 * c1 * math.sqrt(excess) < kl(rare, common) <= c1 * math.sqrt(excess)
    assert 0.4 * c2 * math.sqrt(excess) < kl(common, rare) <= c2 * math.sqrt(excess)


# -- where DDO cannot start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.02), (1, 1), (10, 0.1), (100, 3)])
def test_a_reference_at_its_maximum_likelihood_is_stationary(alpha: float, beta: float) -> None:
    """E_data ∇log p = 0 there, and E_ref ∇log p_ref = 0 always: a small model has nothing to learn at step 0."""
    w = world(3)
    features = torch.randn(4, STATES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def log_model(parameters: Tensor) -> Tensor:
        return log_softmax(parameters @ features, 0)

    def gradient_at_reference(parameters: Tensor) -> Tensor:
        restricted = World(w.data, log_model(parameters).exp())
        return gradient(lambda point: restricted.loss(log_model(point), DDO(alpha, beta)), parameters)

    fitted = minimise(lambda point: -(w.data * log_model(point)).sum(), torch.zeros(4, dtype=torch.float64))
    assert kl(w.data, log_model(fitted).exp()) > 0.1  # the family does not hold the data distribution
    assert gradient_at_reference(fitted).abs().max() < 1e-7 * beta * (1 + alpha)
    assert gradient_at_reference(fitted + 0.1).abs().max() > 1e-3 * beta


# -- step 0 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0, 100.0])
def test_step0_loss_is_one_plus_alpha_times_ln2(alpha: float) -> None:
    zero = torch.zeros(8)
    outcome = DDO(alpha, 0.05)(Terms(zero, r_real=zero, r_fake=zero))
    ln2 = torch.tensor(math.log(2), dtype=torch.float32)
    assert torch.equal(outcome.per_sample(), (ln2 + alpha * ln2).expand(8))
    torch.testing.assert_close(outcome.mean(), ln2 + alpha * ln2, rtol=2.4e-7, atol=0)  # summing may round


def test_step0_loss_counts_alpha_for_samples_with_a_label_alone() -> None:
    """Half of the labels dropped, and fakes for the others alone: ln 2 · (1 + α/2)."""
    zero = torch.zeros(8)
    outcome = DDO(3, 0.05)(Terms(zero, r_real=zero, r_fake=zero[:4], kept=torch.tensor([0, 2, 5, 7])))
    assert float(outcome.mean()) == pytest.approx(math.log(2) * (1 + 3 / 2), rel=1e-7)


# -- samples do not see each other -----------------------------------------------------------------------------------


def random_terms(count: int = 12, requires_grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logp, real, fake = (20 * torch.randn(3, count, generator=generator, dtype=torch.float64)).unbind(0)
    return logp, real.clone().requires_grad_(requires_grad), fake.clone().requires_grad_(requires_grad)


def losses(real: Tensor, fake: Tensor) -> Outcome:
    return DDO(2.5, 0.3)(Terms(torch.zeros_like(real), r_real=real, r_fake=fake))


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 12])
def test_accumulated_micro_batches_equal_the_whole_batch(micro_batch: int) -> None:
    _, real, fake = random_terms(requires_grad=True)
    whole = losses(real, fake).per_sample()
    parts = [losses(*part).per_sample() for part in zip(real.split(micro_batch), fake.split(micro_batch), strict=True)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-15, atol=0)

    together = torch.autograd.grad(whole.sum() / 12, (real, fake), retain_graph=True)
    by_part = [torch.autograd.grad(part.sum() / 12, (real, fake), retain_graph=True) for part in parts]
    for index, grad in enumerate(together):
        torch.testing.assert_close(sum(grads[index] for grads in by_part), grad, rtol=1e-14, atol=0)


def test_losses_follow_their_samples_through_a_permutation() -> None:
    _, real, fake = random_terms()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses(real[order], fake[order]).real, losses(real, fake).real[order], rtol=0, atol=0)
    torch.testing.assert_close(losses(real[order], fake[order]).fake, losses(real, fake).fake[order], rtol=0, atol=0)


def test_per_sample_and_mean_agree() -> None:
    _, real, fake = random_terms()
    outcome = losses(real, fake)
    torch.testing.assert_close(outcome.per_sample().mean(), outcome.mean())


def test_per_sample_refuses_to_pair_unequal_numbers_of_reals_and_fakes() -> None:
    _, real, fake = random_terms()
    with pytest.raises(ValueError, match="not 5 and 12"):
        losses(real, fake[:5]).per_sample()


# -- extremes --------------------------------------------------------------------------------------------------------


@EXAMPLES
@given(
    st.lists(st.tuples(RATIOS, RATIOS), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5, 100.0]),
    st.sampled_from([0.01, 1.0, 3.0]),
)
def test_losses_and_gradients_are_finite_and_bounded_everywhere(
    rows: list[tuple[float, float]], alpha: float, beta: float
) -> None:
    real, fake = (torch.tensor([row[i] for row in rows], requires_grad=True) for i in range(2))
    outcome = DDO(alpha, beta)(Terms(real.detach(), r_real=real, r_fake=fake))
    grad_real, grad_fake = torch.autograd.grad(outcome.per_sample().sum(), (real, fake))

    slack = 1 + 1e-6
    assert ((outcome.real >= 0) & (outcome.real <= slack * (beta * real.abs() + math.log(2)))).all()
    assert ((outcome.fake >= 0) & (outcome.fake <= slack * alpha * (beta * fake.abs() + math.log(2)))).all()
    assert ((grad_real <= 0) & (grad_real >= -beta * slack)).all()  # descent raises p_θ of reals
    assert ((grad_fake >= 0) & (grad_fake <= alpha * beta * slack)).all()  # and lowers that of fakes
    assert outcome.statistics["nonfinite"] == 0


def test_the_logarithm_of_a_sigmoid_would_overflow_where_logsigmoid_does_not() -> None:
    r = torch.tensor([-1e6])
    assert DDO(1, 1)(Terms(r, r_real=r, r_fake=-r)).per_sample().item() == pytest.approx(2e6)
    assert (-r.sigmoid().log()).isinf().all()


def test_one_sample_is_a_batch() -> None:
    one = torch.tensor([0.7])
    outcome = losses(one, one)
    assert outcome.mean() == outcome.per_sample()[0]


def test_a_batch_without_fakes_has_reals_alone() -> None:
    _, real, fake = random_terms()
    outcome = losses(real, fake[:0])
    torch.testing.assert_close(outcome.mean(), outcome.real.mean())
    assert all(outcome.statistics[name].numel() == 0 for name in ("rewards/fake", "rewards/margin", "loss/fake"))
    assert torch.equal(outcome.per_sample(), outcome.real)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_counted_and_never_zeroed(bad: float) -> None:
    _, real, fake = random_terms()
    real[2] = fake[4] = fake[5] = bad
    outcome = losses(real, fake)
    assert outcome.statistics["nonfinite"] == 3
    if math.isnan(bad):
        assert outcome.mean().isnan()


@pytest.mark.parametrize(
    ("alpha", "beta"), [(-1, 1), (math.nan, 1), (math.inf, 1), (1, 0), (1, -1), (1, math.nan), (1, math.inf)]
)
def test_impossible_alpha_and_beta_are_refused(alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        DDO(alpha, beta)


def test_ddo_without_fakes_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the log-ratios"):
        DDO(1, 1)(Terms(torch.zeros(3), r_real=torch.zeros(3)))


# -- derivatives and statistics --------------------------------------------------------------------------------------


def test_gradcheck() -> None:
    _, real, fake = random_terms(requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, f: losses(r, f).per_sample(), (real / 20, fake / 20))


def test_statistics_mean_what_their_names_say() -> None:
    """β = 2, α = 3, and the third of four labels was dropped; rewards and accuracies worked out by hand."""
    real, fake = torch.tensor([1.0, -2.0, 4.0, 1.0]), torch.tensor([-1.0, 3.0, -5.0])
    terms = Terms(real - 7, real * 0 - 7, real, fake, fake - 9, fake * 0 - 9, kept=torch.tensor([0, 1, 3]))
    statistics = DDO(3, 2)(terms).statistics
    means = {name: values.mean().item() for name, values in statistics.items()}
    assert means["rewards/real"] == 2 * 1
    assert means["rewards/unlabelled"] == 2 * 4
    assert means["rewards/fake"] == -2 * 1
    assert means["rewards/margin"] == 4
    assert means["accuracies/real"] == 0.75
    assert means["accuracies/fake"] == pytest.approx(2 / 3)
    assert means["accuracies/pairs"] == pytest.approx(2 / 3)  # 1 > −1, −2 < 3, 1 > −5
    assert means["logps/real"] == -6
    assert means["logps/real_ref"] == -7
    assert means["logps/fake"] == -10
    assert means["logps/fake_ref"] == -9
    assert means["loss/real"] == pytest.approx(sum(math.log1p(math.exp(-2 * r)) for r in real.tolist()) / 4)
    assert means["loss/fake"] == pytest.approx(3 * sum(math.log1p(math.exp(2 * r)) for r in fake.tolist()) / 3)


def test_statistics_hold_no_graph() -> None:
    logp, real, fake = random_terms(requires_grad=True)
    terms = Terms(logp.requires_grad_(), r_real=real, r_fake=fake)
    for outcome in (DDO(1, 1)(terms), MLE()(terms)):
        assert outcome.mean().requires_grad
        assert not any(values.requires_grad for values in outcome.statistics.values())


# -- the control -----------------------------------------------------------------------------------------------------


def test_mle_is_the_negative_log_likelihood_of_the_reals() -> None:
    logp, _, _ = random_terms()
    outcome = MLE()(Terms(logp))
    assert (MLE().trains_on, DDO(1, 1).trains_on) == ("real", "both")
    torch.testing.assert_close(outcome.per_sample(), -logp)
    torch.testing.assert_close(outcome.mean(), -logp.mean())
    assert outcome.statistics["nonfinite"] == 0


def test_neon_is_maximum_likelihood_under_the_names_of_fakes() -> None:
    logp, _, _ = random_terms()
    outcome, control = MLE(trains_on="fakes")(Terms(logp)), MLE()(Terms(logp))
    assert outcome.per_sample().equal(control.per_sample())
    assert outcome.mean().equal(control.mean())
    assert outcome.statistics.keys() == {"loss/fake", "logps/fake", "nonfinite"}
    assert outcome.statistics["logps/fake"].equal(logp.detach())
