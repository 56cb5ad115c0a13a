"""One line on the terminal for a whole run: the share that is done, the running steps, and the time left."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

from tqdm import tqdm

from ddo_plugin.jobs.runner import Runner

INTERVAL_S = 0.5


class ProgressLine:
    """Shows the progress of a runner's tasks, out of a total cost."""

    def __init__(self, runner: Runner, total_cost: float):
        self.runner = runner
        done, _ = runner.state()
        bar_format = "{percentage:3.0f}% |{bar:24}| {elapsed} gone, {remaining} left  {postfix}"
        self.bar = tqdm(total=total_cost, initial=done, bar_format=bar_format, disable=None)

    def show_until(self, futures: Sequence[Future[Any]]) -> None:
        """Update the line until all futures are done. Raise the first exception of a future at once."""
        with self.bar:
            while True:
                finished, waiting = wait(futures, INTERVAL_S, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                self._update()
                if not waiting:
                    return

    def _update(self) -> None:
        done, running = self.runner.state()
        self.bar.set_postfix_str(" · ".join(f"{name} {share:.0%}" for name, share in running), refresh=False)
        self.bar.n = min(done, self.bar.total)
        self.bar.refresh()
