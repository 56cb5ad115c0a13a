"""The objectives: they turn log-ratios into losses per sample and statistics (Eq. 9 and 13 of the paper)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

TrainsOn = Literal["real", "fakes", "both"]


@dataclass(frozen=True)
class Terms:
    """Log-likelihoods and log-ratios of a batch; r(x) = log p_θ(x) − log p_ref(x)."""

    logp_real: Tensor  # [N] log p_θ of the real samples, or of fakes in their place, up to a constant
    logp_ref_real: Tensor | None = None  # [N] the same under the reference
    r_real: Tensor | None = None  # [N] log-ratios of the real samples
    r_fake: Tensor | None = None  # [M] log-ratios of the reference's samples
    logp_fake: Tensor | None = None  # [M] log p_θ of the reference's samples, up to a constant
    logp_ref_fake: Tensor | None = None  # [M] the same under the reference
    kept: Tensor | None = None  # [M] the position of the real sample of each fake, if labels of the others were dropped


@dataclass(frozen=True)
class Outcome:
    """Losses of a batch. `statistics` holds detached tensors with a value per sample or per batch."""

    real: Tensor  # [N]
    fake: Tensor  # [M], multiplied by α
    statistics: dict[str, Tensor] = field(default_factory=dict)

    def per_sample(self) -> Tensor:
        """Return [N] the real term of each sample plus its fake term, for loops that sum and divide by N."""
        if self.fake.numel() == 0:
            return self.real
        if self.real.shape != self.fake.shape:
            raise ValueError(
                f"per_sample() needs as many fakes as reals, not {len(self.fake)} and {len(self.real)}; use mean()"
            )
        return self.real + self.fake

    def mean(self) -> Tensor:
        """Return the loss of the batch. It divides by the number of reals; for a real without a fake, α is 0."""
        return self.real.mean() + self.fake.sum() / len(self.real)


class Objective(Protocol):
    """A finetuning objective. Plugins add objectives with the hook `ddo_objectives`."""

    @property
    def trains_on(self) -> TrainsOn:
        """Return what a step trains on: real samples, fakes in their place, or both, compared with the reference."""

    def __call__(self, terms: Terms) -> Outcome: ...


@dataclass(frozen=True)
class DDO:
    """Eq. 13: −log σ(β r) on real samples and −α log σ(−β r) on samples of the reference."""

    alpha: float
    beta: float
    trains_on: TrainsOn = "both"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be finite and ≥ 0, not {self.alpha}")
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta must be finite and > 0, not {self.beta}")

    def __call__(self, terms: Terms) -> Outcome:
        if terms.r_real is None or terms.r_fake is None:
            raise ValueError("the DDO objective needs the log-ratios of real and fake samples")
        real = -logsigmoid(self.beta * terms.r_real)
        fake = -self.alpha * logsigmoid(-self.beta * terms.r_fake)
        return Outcome(real, fake, objective_statistics(terms, self.beta, real, fake))


@dataclass(frozen=True)
class MLE:
    """Maximum likelihood, −log p_θ(x): on real samples the control of every experiment, on fakes the training of Neon.

    Fakes take the place of the real samples in `Terms` and in `Outcome`; the statistics are named after them.
    """

    trains_on: Literal["real", "fakes"] = "real"

    def __call__(self, terms: Terms) -> Outcome:
        loss = -terms.logp_real
        kind = "real" if self.trains_on == "real" else "fake"
        with torch.no_grad():
            stats = {f"loss/{kind}": loss.detach(), f"logps/{kind}": terms.logp_real.detach()}
            stats["nonfinite"] = count_nonfinite(terms.logp_real)
        return Outcome(loss, loss.new_zeros(0), stats)


@torch.no_grad()
def objective_statistics(terms: Terms, beta: float, loss_real: Tensor, loss_fake: Tensor) -> dict[str, Tensor]:
    """Return the logged metrics, with the names of TRL: chosen = real, rejected = fake."""
    assert terms.r_real is not None and terms.r_fake is not None
    r_real, r_fake = terms.r_real.detach(), terms.r_fake.detach()
    with_fakes = r_real if terms.kept is None else r_real[terms.kept]
    stats = {
        "rewards/real": beta * r_real,
        "rewards/fake": beta * r_fake,
        "rewards/margin": beta * (r_real.mean() - r_fake.mean()) if len(r_fake) else r_fake,
        "accuracies/real": (r_real > 0).float(),
        "accuracies/fake": (r_fake < 0).float(),
        "loss/real": loss_real.detach(),
        "loss/fake": loss_fake.detach(),
        "nonfinite": count_nonfinite(r_real, r_fake),
    }
    if with_fakes.shape == r_fake.shape:
        stats["accuracies/pairs"] = (with_fakes > r_fake).float()
    if terms.kept is not None and len(r_real) > len(with_fakes):
        without = r_real.index_fill(0, terms.kept, 0).sum() / (len(r_real) - len(with_fakes))
        stats["rewards/unlabelled"] = beta * without
    likelihoods = {
        "logps/real": terms.logp_real,
        "logps/real_ref": terms.logp_ref_real,
        "logps/fake": terms.logp_fake,
        "logps/fake_ref": terms.logp_ref_fake,
    }
    return stats | {name: logp.detach() for name, logp in likelihoods.items() if logp is not None}


def count_nonfinite(*tensors: Tensor) -> Tensor:
    """Return the number of NaN or infinite values. They are reported and never silently replaced."""
    return torch.stack([(~torch.isfinite(t)).sum() for t in tensors]).sum().float()
