"""Token log-probabilities against log_softmax and gather, and what they cost in memory."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ddo_plugin.objective import tokens
from ddo_plugin.objective.ddo import DDO, Terms
from ddo_plugin.objective.tokens import drop_labels, log_ratio, token_logp, token_logp_from_head

N, L, V, C = 3, 7, 50, 8
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def some_logits(dtype: torch.dtype = torch.float32, shape: tuple[int, int, int] = (N, L, V)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    return logits, torch.randint(shape[2], shape[:2], generator=generator)


def plain_logp(logits: Tensor, drawn: Tensor) -> Tensor:
    """The usual way: a full fp32 copy of log-softmax."""
    upcast = logits if logits.dtype == torch.float64 else logits.float()
    return upcast.log_softmax(-1).gather(-1, drawn[..., None]).squeeze(-1)


def weighted_gradient(logp: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 2, logp.numel(), dtype=logp.dtype).view(logp.shape)
    return torch.autograd.grad((weights * logp).sum(), inputs, retain_graph=True)


# -- values and gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_per_chunk", [1, 4, 21, 4096])
def test_token_logp_is_log_softmax_and_gather_in_fp32(dtype: torch.dtype, rows_per_chunk: int) -> None:
    logits, drawn = some_logits(dtype)
    found, expected = token_logp(logits, drawn, rows_per_chunk), plain_logp(logits, drawn)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    (grad,), (expected_grad,) = weighted_gradient(found, logits), weighted_gradient(expected, logits)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad, expected_grad)


def test_token_logp_does_not_depend_on_rows_per_chunk() -> None:
    logits, drawn = some_logits()
    whole = token_logp(logits, drawn)
    for rows in (1, 2, 5, 20):
        part = token_logp(logits, drawn, rows)
        assert torch.equal(part, whole)
        assert torch.equal(weighted_gradient(part, logits)[0], weighted_gradient(whole, logits)[0])


def test_token_logp_is_a_distribution() -> None:
    logits, _ = some_logits(torch.float64, (1, V, V))
    every_token = torch.arange(V)[None]
    logp = token_logp(logits[:, :1].expand(1, V, V), every_token)
    assert logp.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_token_logp_stays_fp32_under_any_default_dtype(default: torch.dtype) -> None:
    logits, drawn = some_logits()
    expected = plain_logp(logits, drawn)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        found = token_logp(logits, drawn)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(found, expected)


def test_a_sum_of_half_precision_log_probabilities_would_be_off() -> None:
    """680 tokens of a VAR image: bf16 logits cost little, a bf16 sum costs more than β·r can bear."""
    logits, drawn = some_logits(torch.bfloat16, (4, 680, 64))
    exact = plain_logp(logits.double(), drawn).sum(1)
    assert (token_logp(logits, drawn).sum(1) - exact).abs().max() < 0.01
    in_bf16 = logits.log_softmax(-1).gather(-1, drawn[..., None]).squeeze(-1).sum(1)
    assert (in_bf16 - exact).abs().max() > 1


def test_token_logp_survives_huge_and_impossible_logits() -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0], [-math.inf, 0.0, 0.0], [-6e4, -6e4, -6e4]]], requires_grad=True)
    drawn = torch.tensor([[0, 1, 2]])
    logp = token_logp(logits, drawn)
    torch.testing.assert_close(logp, torch.tensor([[0.0, -math.log(2), -math.log(3)]]))
    assert weighted_gradient(logp, logits)[0].isfinite().all()
    assert token_logp(logits, torch.tensor([[1, 0, 0]]))[0, 1] == -math.inf


def test_token_logp_takes_logits_that_are_not_contiguous() -> None:
    logits, drawn = some_logits(shape=(N, V, L))
    drawn = drawn[:, :L] % V
    turned = logits.transpose(1, 2)
    torch.testing.assert_close(token_logp(turned, drawn), plain_logp(turned, drawn))


def test_gradcheck() -> None:
    logits, drawn = some_logits(torch.float64, (2, 3, 5))
    assert torch.autograd.gradcheck(lambda x: token_logp(x, drawn, 2), logits)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    logits, drawn = some_logits(torch.float64)
    (grad,) = torch.autograd.grad(token_logp(logits, drawn).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="inplace operation"):
        grad.sum().backward()


# -- from the head ----------------------------------------------------------------------------------------------------


def some_head(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(0)
    return torch.randn(N, L, C, dtype=dtype, requires_grad=True), torch.randint(V, (N, L)), nn.Linear(C, V, dtype=dtype)


@pytest.mark.parametrize("rows_per_chunk", [1, 4, 21, 4096])
def test_token_logp_from_head_equals_the_head_and_then_token_logp(rows_per_chunk: int) -> None:
    hidden, drawn, head = some_head()
    inputs = (hidden, *head.parameters())
    found, expected = token_logp_from_head(hidden, drawn, head, rows_per_chunk), token_logp(head(hidden), drawn)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weighted_gradient(found, *inputs), weighted_gradient(expected, *inputs))
    with torch.no_grad():
        torch.testing.assert_close(token_logp_from_head(hidden, drawn, head, rows_per_chunk), expected)


def test_token_logp_from_head_under_autocast_is_fp32_from_half_precision_logits() -> None:
    hidden, drawn, head = some_head()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = token_logp_from_head(hidden, drawn, head, 4), plain_logp(head(hidden), drawn)
        assert head(hidden).dtype == torch.bfloat16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        weighted_gradient(found, hidden), weighted_gradient(expected, hidden), rtol=2e-2, atol=2e-2
    )


def test_gradcheck_from_head() -> None:
    hidden, drawn, head = some_head(torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w, b: token_logp_from_head(h, drawn, lambda x: nn.functional.linear(x, w, b), 4),
        (hidden, *head.parameters()),
    )


# -- memory -----------------------------------------------------------------------------------------------------------


@contextmanager
def saved_bytes() -> Iterator[Callable[[], int]]:
    """Bytes that autograd keeps for backward, each storage counted once."""
    storages: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(storage.nbytes() for storage in storages.values())


class LargestResult(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes, backward included."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(made, Tensor):
                self.largest = max(self.largest, made.numel())
        return result


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_token_logp_keeps_one_copy_of_the_logits(dtype: torch.dtype) -> None:
    logits, drawn = some_logits(dtype)
    logits_bytes, row_bytes = logits.numel() * logits.element_size(), drawn.numel() * (8 + 2 * 4)
    with saved_bytes() as count:
        logp = token_logp(logits, drawn, 4)
    assert count() == logits_bytes + row_bytes  # the logits themselves, the tokens, two numbers a row
    assert logp.requires_grad
    with saved_bytes() as count:
        plain_logp(logits, drawn)
    assert (
        count() == 4 * logits.numel() + 8 * drawn.numel()
    )  # the fp32 copy, on top of the logits that their maker keeps


def test_token_logp_upcasts_one_chunk_at_a_time() -> None:
    logits, drawn = some_logits(torch.bfloat16)

    class LargestUpcast(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dtype == torch.float32:
                self.largest = max(self.largest, result.numel())
            return result

    with LargestUpcast() as mode:
        token_logp(logits, drawn, 4).sum().backward()
    assert mode.largest == 4 * V


def test_token_logp_from_head_never_holds_all_logits() -> None:
    hidden, drawn, head = some_head()
    with LargestResult() as mode, saved_bytes() as count:
        logp = token_logp_from_head(hidden, drawn, head, 4)
        kept = count()
        logp.sum().backward()
    assert mode.largest < N * L * V
    assert kept < 4 * N * L * V
    with LargestResult() as mode, saved_bytes() as count:
        token_logp(head(hidden), drawn, 4).sum().backward()
    assert mode.largest == N * L * V
    assert count() > 4 * N * L * V


# -- log-ratios and terms ---------------------------------------------------------------------------------------------


def test_log_ratio_is_the_sum_over_tokens_and_exactly_zero_on_agreement() -> None:
    logits, drawn = some_logits()
    logp, logp_ref = token_logp(logits, drawn), token_logp(logits * 0.9, drawn)
    torch.testing.assert_close(log_ratio(logp, logp_ref), logp.sum(1) - logp_ref.sum(1), rtol=1e-4, atol=1e-4)
    assert (log_ratio(logp, logp.clone()) == 0).all()


def test_log_ratio_subtracts_before_it_sums() -> None:
    torch.manual_seed(0)
    logp = -5 * torch.rand(32, 680)
    logp_ref = logp + 1e-6 * torch.randn(32, 680)
    exact = (logp.double() - logp_ref.double()).sum(1)
    assert (log_ratio(logp, logp_ref) - exact).abs().max() < 1e-8
    assert ((logp.sum(1) - logp_ref.sum(1)) - exact).abs().max() > 1e-5


def test_terms_split_reals_from_fakes_and_hold_the_likelihood() -> None:
    logp, logp_ref = -torch.rand(2, 5, L).unbind(0)[0], -torch.rand(5, L)
    kept = torch.tensor([0, 2])
    terms = tokens.token_terms(logp, logp_ref, 3, kept)
    assert terms.r_real is not None and terms.r_fake is not None and terms.logp_ref_real is not None
    assert terms.logp_fake is not None and terms.logp_ref_fake is not None
    torch.testing.assert_close(terms.logp_real, logp[:3].sum(1))
    torch.testing.assert_close(terms.logp_ref_real, logp_ref[:3].sum(1))
    torch.testing.assert_close(terms.r_real, (logp - logp_ref)[:3].sum(1))
    torch.testing.assert_close(terms.r_fake, (logp - logp_ref)[3:].sum(1))
    torch.testing.assert_close(terms.logp_fake, logp[3:].sum(1))
    torch.testing.assert_close(terms.logp_ref_fake, logp_ref[3:].sum(1))
    assert terms.kept is kept


def test_terms_without_a_reference_hold_the_likelihood_alone() -> None:
    terms = tokens.token_terms(-torch.ones(4, L), None, 4)
    torch.testing.assert_close(terms.logp_real, torch.full((4,), -float(L)))
    assert terms.r_real is terms.r_fake is terms.logp_ref_real is None


def test_reals_keep_their_term_with_or_without_a_label() -> None:
    logits, drawn = some_logits(torch.float64, (5, L, V))
    logp, logp_ref = token_logp(logits, drawn), token_logp(logits * 0.9, drawn).detach()
    outcome = DDO(2, 0.1)(tokens.token_terms(logp, logp_ref, 3, kept=torch.tensor([0, 2])))
    (grad,) = torch.autograd.grad(outcome.mean(), logits)
    assert all((of_sample != 0).any() for of_sample in grad)


def test_no_gradient_flows_through_the_reference() -> None:
    """Even if its forward ran with a graph: one network as both would otherwise cancel its own gradient to zero."""
    logits, drawn = some_logits(torch.float64, (4, L, V))
    logp = token_logp(logits, drawn)
    outcome = DDO(1, 0.1)(tokens.token_terms(logp, logp, 2))
    (grad,) = torch.autograd.grad(outcome.mean(), logits)
    assert (grad != 0).any()


def test_equal_networks_give_a_loss_of_exactly_one_plus_alpha_times_ln2() -> None:
    logits, drawn = some_logits(shape=(4, L, V))
    outcome = DDO(10, 0.02)(tokens.token_terms(token_logp(logits, drawn), token_logp(logits, drawn), 2))
    ln2 = torch.tensor(math.log(2))
    assert torch.equal(outcome.per_sample(), (ln2 + 10 * ln2).expand(2))


# -- label dropout ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "share", "dropped"), [(8, 0.5, 4), (8, 0.0, 0), (8, 1.0, 8), (128, 0.1, 13), (7, 0.5, 4)]
)
def test_drop_labels_drops_exactly_the_share(count: int, share: float, dropped: int) -> None:
    labels = torch.arange(count)
    found, kept = drop_labels(labels, -1, share)
    assert int((found == -1).sum()) == dropped
    assert torch.equal(found[kept], labels[kept])  # the others keep theirs, where they were
    assert torch.equal(kept, (found != -1).nonzero().squeeze(1))
    assert torch.equal(labels, torch.arange(count))  # the caller's labels are left alone


def test_drop_labels_is_decided_by_torchs_global_seed() -> None:
    def dropped(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return drop_labels(torch.zeros(64, dtype=torch.long), 1)[0]

    assert torch.equal(dropped(0), dropped(0))
    assert not torch.equal(dropped(0), dropped(1))


def test_drop_labels_favours_no_position() -> None:
    torch.manual_seed(0)
    counts = sum(drop_labels(torch.zeros(8, dtype=torch.long), 1)[0] for _ in range(2000))
    assert ((counts / 2000 - 0.5).abs() < 0.05).all()


def test_target_and_reference_see_the_same_dropped_labels() -> None:
    """One network as both, conditioned on labels that are dropped once: r is 0. Dropped anew for each, it is not."""
    torch.manual_seed(0)
    embedding, head = nn.Embedding(11, C), nn.Linear(C, V)
    labels, drawn = torch.randint(10, (8,)), torch.randint(V, (8, L))

    def logp(labels: Tensor) -> Tensor:
        return token_logp_from_head(embedding(labels)[:, None].expand(8, L, C), drawn, head)

    once, _ = drop_labels(labels, 10)
    assert (log_ratio(logp(once), logp(once)) == 0).all()
    assert (log_ratio(logp(drop_labels(labels, 10)[0]), logp(drop_labels(labels, 10)[0])) != 0).any()


def test_dropping_exactly_half_has_the_expectation_of_dropping_each_with_probability_one_half() -> None:
    """Of the loss; and a loss over the kept fakes alone has it as well, because it is a sum over samples."""
    torch.manual_seed(0)
    labelled, unlabelled, fake = torch.randn(3, 4, dtype=torch.float64).unbind(0)

    def loss(kept: tuple[bool, ...]) -> float:
        mask = torch.tensor(kept)
        terms = Terms(fake, r_real=torch.where(mask, labelled, unlabelled), r_fake=fake[mask])
        return float(DDO(5, 1)(terms).mean())

    every = list(itertools.product([False, True], repeat=4))
    half = [kept for kept in every if sum(kept) == 2]
    assert statistics.mean(map(loss, half)) == pytest.approx(statistics.mean(map(loss, every)), rel=1e-12)


# -- an oracle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 30.0])
@pytest.mark.parametrize("dropped", [0, 3])
def test_loss_and_gradient_equal_an_oracle_in_numpy(alpha: float, dropped: int) -> None:
    """The authors' form: a fake for every sample, α = 0 where the label was dropped, the mean over all samples.

    Ours has fakes for the others alone.
    """
    beta, count = 0.3, 8
    generator = torch.Generator().manual_seed(int(alpha) + dropped)
    shape = (2 * count, L, V)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    logits_ref = logits + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    drawn = torch.randint(V, shape[:2], generator=generator)
    kept = torch.randperm(count, generator=generator)[dropped:].sort().values

    rows = torch.cat([torch.arange(count), count + kept])
    ours = logits[rows].requires_grad_()
    logp, logp_ref = token_logp(ours, drawn[rows]), token_logp(logits_ref[rows], drawn[rows])
    loss = DDO(alpha, beta)(tokens.token_terms(logp, logp_ref, count, kept)).mean()
    (gradient,) = torch.autograd.grad(loss, ours)

    def softmax(x: np.ndarray) -> np.ndarray:
        shifted = np.exp(x - x.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)

    one_hot = np.eye(V)[drawn.numpy()]
    target, reference = softmax(logits.numpy()), softmax(logits_ref.numpy())
    r = np.log((target * one_hot).sum(-1)).sum(1) - np.log((reference * one_hot).sum(-1)).sum(1)
    real, fake = r[:count], r[count:]
    weight = alpha * np.isin(np.arange(count), kept.numpy())
    expected = (np.log1p(np.exp(-beta * real)) + weight * np.log1p(np.exp(beta * fake))).mean()
    by_r = np.concatenate([-beta / (1 + np.exp(beta * real)), weight * beta / (1 + np.exp(-beta * fake))]) / count
    by_logits = by_r[:, None, None] * (one_hot - target)

    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert np.abs(gradient.numpy() - by_logits[rows]).max() < 1e-12
    absent = np.setdiff1d(np.arange(2 * count), rows)
    assert (by_logits[absent] == 0).all()  # fakes of dropped labels add nothing to their gradient either
