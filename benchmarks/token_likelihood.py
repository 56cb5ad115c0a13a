"""Measure time and peak memory of three ways to compute the log-probabilities of tokens."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddo_plugin.objective.tokens import token_logp, token_logp_from_head

# sequence length and codes of VAR; a narrow head, so that the logits dominate
SAMPLES, LENGTH, WIDTH, VOCABULARY = 16, 680, 256, 4096
REPEATS = 3


def naive(hidden: Tensor, tokens: Tensor, head: nn.Module) -> Tensor:
    return head(hidden).float().log_softmax(-1).gather(2, tokens[..., None]).squeeze(2)


def chunked(hidden: Tensor, tokens: Tensor, head: nn.Module) -> Tensor:
    return token_logp(head(hidden), tokens)


WAYS: dict[str, Callable[..., Tensor]] = {
    "naive": naive,
    "token_logp": chunked,
    "token_logp_from_head": token_logp_from_head,
}


def measure(way: str) -> dict[str, float]:
    """Return the CPU seconds of forward and backward, and the increase of the process's peak memory in MiB."""
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY)
    tokens = torch.randint(VOCABULARY, (SAMPLES, LENGTH))
    hidden = torch.randn(SAMPLES, LENGTH, WIDTH, requires_grad=True)
    WAYS[way](hidden[:1], tokens[:1], head).sum().backward()
    before, seconds = _peak(), []
    for _ in range(REPEATS):
        start = time.process_time()
        WAYS[way](hidden, tokens, head).sum().backward()
        seconds.append(time.process_time() - start)
    return {"seconds": statistics.median(seconds), "mebibytes": _peak() - before}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_processes() -> dict[str, dict[str, float]]:
    """Measure each way in a separate process, so that the peaks do not mix."""
    code = "import json, sys; from benchmarks import token_likelihood as t; print(json.dumps(t.measure(sys.argv[1])))"
    return {
        way: json.loads(subprocess.run([sys.executable, "-c", code, way], stdout=subprocess.PIPE, check=True).stdout)
        for way in WAYS
    }


def main() -> None:
    """Print a table of the ways."""
    measured = in_processes()
    logits = SAMPLES * LENGTH * VOCABULARY * 4 / 2**20
    print(
        f"log p of {SAMPLES} × {LENGTH} tokens of {VOCABULARY} codes, forward and backward; logits: {logits:.0f} MiB\n"
    )
    print("| way | CPU time | peak memory / logits |\n|---|---|---|")
    for way, figures in measured.items():
        ratio = figures["seconds"] / measured["naive"]["seconds"]
        print(f"| {way} | {ratio:.2f} | {figures['mebibytes'] / logits:.1f} |")


if __name__ == "__main__":
    main()
