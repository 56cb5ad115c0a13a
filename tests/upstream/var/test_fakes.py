"""How the fakes of a round are made, and what the loss does with them: against upstream's functions and an oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
BETA, NO_LABEL = 0.5, 1000


@pytest.fixture(scope="module")
def script(world, completed, tmp_path_factory):
    """A function: script, arguments -> what the script wrote, run in the world's folder."""

    def run(name: str, *arguments: object) -> dict[str, torch.Tensor]:
        out = tmp_path_factory.mktemp("script") / "out.pt"
        variables = {"PYTHONPATH": f"{world.repo}:{HERE}:{world.variables['PYTHONPATH']}"}
        completed(world.python(HERE / name, world.base, world.data / "train", out, *arguments, **variables))
        return torch.load(out)

    return run


@pytest.fixture(scope="module")
def made(script) -> dict[str, torch.Tensor]:
    return script("fakes.py")


def test_fakes_from_pixels_are_upstreams_decode_and_encode_of_the_drawn_tokens(made) -> None:
    assert torch.equal(made["encoded"], made["encoded by upstream"])
    torch.testing.assert_close(made["inputs"], made["inputs by upstream"])
    assert not torch.equal(made["encoded"], made["tokens 0.0"])
    assert made["logp of encoded"] is None  # the reference has to look at them


def test_the_references_log_probabilities_are_those_without_guidance(made) -> None:
    assert not torch.equal(made["tokens 0.0"], made["tokens 1.5"])
    for guidance in (0.0, 1.5):
        torch.testing.assert_close(made[f"logp {guidance}"], made[f"forward {guidance}"], atol=1e-4, rtol=1e-5)


def test_fakes_are_drawn_in_full_precision_unless_told_otherwise(made) -> None:
    """Log-probabilities of another precision than the training step's are not used."""
    assert torch.equal(made["tokens in fp32 under autocast"], made["tokens 0.0"])
    assert made["logp of fp32 under autocast"] is None
    assert made["logp of amp under autocast"] is not None


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("alpha", [0.5, 10.0])
def test_a_step_has_the_loss_and_the_gradient_of_the_authors_equations(alpha: float, script) -> None:
    """The mean over the batch of −log σ(β r) for the real sample and −α log σ(−β r) for its fake, over max(α, 1).

    α counts 0 where the label was dropped. Written in float64 from the equations; the step computes in fp32.
    """
    seen = {name: value.double().numpy() for name, value in script("oracle.py", alpha).items()}
    tokens = np.concatenate([seen["real"], seen["fake"]]).astype(int)

    def probabilities(network: str) -> np.ndarray:
        return softmax(seen[network] @ seen[f"{network} weight"].T + seen[f"{network} bias"])

    def log_likelihood(network: str) -> np.ndarray:
        return np.log(np.take_along_axis(probabilities(network), tokens[..., None], -1)).squeeze(-1).sum(1)

    r = log_likelihood("target") - log_likelihood("reference")
    count = len(seen["real"])
    real, fake, kept = r[:count], r[count:], seen["labels"][:count] != NO_LABEL
    assert kept.sum() == len(fake) == count // 2 and np.abs(r).min() > 0.01

    scale = count * max(alpha, 1)
    loss = (-np.log(sigmoid(BETA * real)).sum() - alpha * np.log(sigmoid(-BETA * fake)).sum()) / scale
    by_r = np.concatenate([-BETA * sigmoid(-BETA * real), alpha * BETA * sigmoid(BETA * fake)]) / scale
    one_hot = np.zeros_like(probabilities("target"))
    np.put_along_axis(one_hot, tokens[..., None], 1, -1)
    by_logits = by_r[:, None, None] * (one_hot - probabilities("target"))
    gradient = by_logits @ seen["target weight"]

    assert seen["loss"] == pytest.approx(loss, rel=1e-5)
    assert np.abs(seen["gradient"] - gradient).max() < 1e-5 * np.abs(gradient).max()
