"""One rank of `benchmarks.scale`, which starts it by torchrun: cost of a step, and bytes that it communicates."""

# DistributedDataParallel reads the annotations of the hook, which therefore must not be strings.
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from benchmarks.cpu_time import Cost
from benchmarks.gpu.measure import Way
from benchmarks.scale import GRIDS, build, measure, point, prepare, ways


class Traffic:
    """Counts the bytes of tensors that this process hands to collective operations, by the kind of tensor."""

    def __init__(self, ddp: torch.nn.Module):
        self.bytes: dict[str, int] = {}
        ddp.register_comm_hook(None, self._gradients)  # type: ignore[operator]

    def of(self, way: Callable[[], object]) -> dict[str, int]:
        """Return the bytes of a call."""
        self.bytes = {"gradients": 0, "buffers": 0, "other": 0}
        with ExitStack() as stack:
            for name in ("all_reduce", "all_gather", "broadcast", "reduce", "all_gather_into_tensor"):
                stack.enter_context(mock.patch.object(dist, name, self._counted("other", getattr(dist, name))))
            buffers = self._counted("buffers", dist._broadcast_coalesced)  # type: ignore[attr-defined]
            stack.enter_context(mock.patch.object(dist, "_broadcast_coalesced", buffers))
            way()
        self.bytes["other"] -= self.bytes["gradients"]  # the hook calls all_reduce, too
        return self.bytes

    def _gradients(self, state: None, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        if self.bytes:
            self.bytes["gradients"] += bucket.buffer().nbytes
        return allreduce_hook(dist.group.WORLD, bucket)  # type: ignore[arg-type]

    def _counted(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.bytes[kind] += sum(map(_nbytes, args)) + sum(map(_nbytes, kwargs.values()))
            return function(*args, **kwargs)

        return call


def _nbytes(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(_nbytes, value)) if isinstance(value, list) else 0


def statistics() -> None:
    """Synchronise our statistics, as the loops of EDM and EDM2 do when they print."""
    from torch_utils import training_stats

    training_stats.Collector(regex="DDO/.*").update()


def of_all_ranks(measured: dict[str, Cost]) -> dict[str, Cost]:
    """Return the mean CPU time of the ranks, and the longest time by the clock."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, measured)
    means = {name: sum(one[name].cpu for one in found) / len(found) for name in measured}
    return {name: Cost(means[name], max(one[name].wall for one in found)) for name in measured}


@click.command()
@click.argument("upstream", type=click.Choice(list(GRIDS)))
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repeats", type=click.IntRange(min=1), required=True)
def main(upstream: str, checkout: Path, repeats: int) -> None:
    """Measure a step, and print a JSON line on the first rank."""
    prepare(upstream, checkout)
    if upstream == "var":
        dist.init_process_group("gloo")  # upstream's own function does so only with a GPU
    grid = GRIDS[upstream]
    with tempfile.TemporaryDirectory() as folder:
        bench = build(upstream, grid.size, Path(folder) / "network")
        measured = of_all_ranks(measure(bench, grid.batch, repeats))
        traffic = Traffic(bench.ddp)
        counted: dict[str, Way]
        with ways(bench) as found:
            counted = {"ddo": found["ddo"], "mle": found["mle"]}
            if upstream != "var":
                counted["statistics"] = statistics
            sent = {name: traffic.of(way) for name, way in counted.items()}
    if dist.get_rank() == 0:
        row = point(bench, "ranks", dist.get_world_size(), grid.batch, measured)
        print(json.dumps({**row, "bytes": sent}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
