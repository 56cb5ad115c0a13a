"""Sampling a reference set: ranks share the blocks and write them to the arrays on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddo_plugin.base.commands import Command, flags, module_command
from ddo_plugin.base.environment import device_name
from ddo_plugin.base.progress import progress
from ddo_plugin.hooks.types import Generator, RefsetStep, ScoringGenerator
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets.partial import Unfinished

if TYPE_CHECKING:
    from ddo_plugin.base.rank_group import Ranks


def refset_command(step: RefsetStep) -> Command:
    """Return the command that makes the reference set of a self-play step."""
    own = {"upstream": step.upstream, "network": step.network, "out": step.out, "count": step.count}
    options = flags({**own, "seed": step.seed, **step.settings})
    return module_command("ddo_plugin", ["refset", "make", *options])


def make(
    generator: Generator, out: Path, ranks: Ranks, *, count: int, seed: int, labels: np.ndarray | None, batch: int
) -> bool:
    """Write a reference set of `count` samples. Return False if it was complete already.

    Row i depends only on (seed, i), its label and the batch size. A convolution's last bits depend on how many samples
    it processes together, so ranks take whole blocks, and the last block is sampled at the same size as the others.
    """
    batch = min(batch, count)
    plan = refset.draft(
        (count, *generator.shape),
        generator.dtype,
        labels is not None,
        kind=generator.kind,
        reference=generator.reference,
        sampler={**generator.settings, "batch": batch, "device": device_name(generator.device)},
        seed=seed,
        scored=generator.kind == "tokens" and isinstance(generator, ScoringGenerator),
    )
    work = Unfinished(out, plan, labels, batch)
    if ranks.agree(work.made_already):
        return False
    try:
        work.draft, done = ranks.agree(lambda: _begin(work))
        _sample(generator, work, ranks, done, seed)
        ranks.wait()
        ranks.agree(work.finish)
    finally:
        work.close()
    return True


def _begin(work: Unfinished) -> tuple[dict[str, Any], set[int]]:
    work.begin()
    return work.draft, work.done()


def _sample(generator: Generator, work: Unfinished, ranks: Ranks, done: set[int], seed: int) -> None:
    import torch

    from ddo_plugin.hooks.streams import SampleGenerators

    count, finished = int(work.draft["count"]), set(done)
    writer = work.writer()
    with progress("reference set", count, _rows(work, done), unit=" samples", shown=ranks.first) as bar:
        for block in [block for block in range(work.blocks) if block not in done][ranks.rank :: ranks.world]:
            rows = np.arange(block * work.block, (block + 1) * work.block)
            labels = None if work.labels is None else torch.from_numpy(work.labels[rows.clip(max=count - 1)])
            streams = SampleGenerators(seed, rows, generator.device)
            samples, numbers = generator.sample(streams, labels)
            made = [samples]
            if work.scored:
                assert isinstance(generator, ScoringGenerator), "otherwise the draft would have no log-probabilities"
                made.append(generator.logp(samples, numbers).float())
                streams.check(made[-1])
            writer.write(block, *(array[: count - rows[0]].cpu().numpy() for array in made))
            finished.add(block)
            if ranks.first:  # other ranks' progress is read from their records
                bar.update(max(_rows(work, finished | work.done()) - bar.done, 0))
        writer.close()


def _rows(work: Unfinished, blocks: set[int]) -> int:
    return min(len(blocks) * work.block, int(work.draft["count"]))
