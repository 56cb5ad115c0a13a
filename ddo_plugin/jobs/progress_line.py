"""One line on the terminal for a whole self-play run: how far it is, what runs, how long it will still take."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

from tqdm import tqdm

from ddo_plugin.jobs.runner import Runner

INTERVAL_S = 0.5


class Board:
    def __init__(self, runner: Runner, total_cost: float):
        self.runner = runner
        done, _ = runner.state()
        bar_format = "{percentage:3.0f}% |{bar:24}| {elapsed} gone, {remaining} left  {postfix}"
        self.bar = tqdm(total=total_cost, initial=done, bar_format=bar_format, disable=None)

    def show_until(self, futures: Sequence[Future[Any]]) -> None:
        """Follow the run until every future is done; the first exception ends it and is raised here."""
        with self.bar:
            while True:
                finished, waiting = wait(futures, INTERVAL_S, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                self._show()
                if not waiting:
                    return

    def _show(self) -> None:
        done, running = self.runner.state()
        self.bar.set_postfix_str(" · ".join(f"{name} {share:.0%}" for name, share in running), refresh=False)
        self.bar.n = min(done, self.bar.total)
        self.bar.refresh()
