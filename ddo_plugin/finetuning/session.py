"""A configured finetuning run: what every integration needs between `configure` and the last step."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddo_plugin.base.errors import UserError
from ddo_plugin.finetuning.options import ddo_values
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import DEPARTS, Fakes, OnlineFakes, Reference, Run

if TYPE_CHECKING:
    from torch import Tensor

    from ddo_plugin.objective.ddo import Objective, Outcome, Terms


FREE = (  # options that may change in a round
    *("ddo", "ddo_sha256", "ddo_trust", "ddo_strict", "ddo_stop_on_collapse", "ddo_continue"),
    "ddo_fakes",  # told by their content
    "ddo_pause_after",
)
AGREEMENT = 0.05  # mean |reward| at which target and reference no longer pass for one network; bf16 reaches 0.025


@dataclass
class Finetuning:
    """The pieces that the hooks supplied, and the events that are reported to them."""

    run: Run
    objective: Objective
    reference: Reference
    fakes: Fakes | None  # None: the objective needs none, or the integration draws them itself
    native: Mapping[str, Any] = field(default_factory=dict)  # by name, what upstream's own flags set for the round
    _pauses: bool = field(default=False, init=False)  # the next step is left to a later start

    def judge(self, terms: Terms, step: int) -> Outcome:
        """Apply the objective; on the first rank, hand its statistics to whoever listens."""
        if self._pauses:
            self._leave()
        outcome = self.objective(terms)
        if step == 0:
            _check_agreement(outcome.statistics)
        if _rank() == 0:
            plugins.manager().hook.ddo_statistics(run=self.run, step=step, statistics=outcome.statistics)
        return outcome

    def settings(self) -> dict[str, Any]:
        """What a run that goes on must have in common with the one before: all flags, and the fakes by content."""
        options = {name: value for name, value in self.run.options.items() if name not in FREE}
        fakes = self.run.provenance.get("fakes") or {}
        return {**options, "ddo_fakes": fakes.get("sha256") or fakes.get("images"), **self.native}

    def check_same(self, earlier: Mapping[str, Any], state: Path) -> None:
        """Refuse to go on from a state of a run with other settings: half a round each is no round."""
        for name, value in self.settings().items():
            if name in earlier and _plain(earlier[name]) != _plain(value):
                flag = name if name in self.native else "--" + name.replace("_", "-")
                raise UserError(
                    f"{state} is of a round with {flag}={earlier[name]}, not {value}; go on with the same, or begin a "
                    "round in another folder"
                )

    def snapshot_written(self, path: Path, step: int) -> None:
        plugins.manager().hook.ddo_snapshot(run=self.run, path=path, step=step)

    def paused(self, step: int) -> None:
        """Every rank comes here when a training state is about to be written, or was, or the run is over."""
        if _rank() == 0:
            plugins.manager().hook.ddo_pause(run=self.run, step=step)
        self._pauses = self._has_enough_snapshots(step)

    def leave_if_paused(self, step: int) -> None:
        """Every rank of a run that is about to go on from this step comes here: it may have gone far enough already."""
        if self._has_enough_snapshots(step):
            self._leave()

    def _has_enough_snapshots(self, step: int) -> bool:
        """Whether those up to this step are as many as --ddo-pause-after asks for."""
        from ddo_plugin.snapshots import sidecar

        wanted = self.run.options.get("ddo_pause_after")
        if wanted is None:
            return False
        return _as_first_rank(sum(one <= step for one in sidecar.steps(self.run.outdir)) >= wanted)

    def _leave(self) -> None:
        if _rank() == 0:
            print(
                f"ddo: {self.run.outdir}: paused; the same command without --ddo-pause-after goes on", file=sys.stderr
            )
        raise SystemExit(0)


_active: dict[str, Finetuning] = {}


def active(upstream: str) -> Finetuning:
    """The run that `prepare` made ready in this process, for what a native loop builds by name."""
    return _active[upstream]


def prepare(upstream: str, outdir: Path, options: Mapping[str, Any]) -> Finetuning:
    """Build objective, reference and fakes through the hooks; every missing piece is one clear line."""
    _check_folder(outdir)
    hook = plugins.manager().hook
    objective = _objective(hook, options)
    source = options["ddo"]
    reference = hook.ddo_reference(upstream=upstream, source=source, options=options)
    if reference is None:
        raise UserError(f"--ddo={source}: no plugin can load a reference for {upstream}; `ddo plugins` lists them")
    fakes = _fakes(hook, upstream, reference, options) if objective.needs_fakes else None
    if fakes is not None:
        _check_origin(fakes, reference, options)
    provenance = {
        "reference": {"source": reference.source, "sha256": reference.sha256},
        "fakes": dict(fakes.description) if fakes else None,
        "versions": {
            "ddo-plugin": version("ddo-plugin"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }
    run = Run(upstream, outdir, ddo_values(options), provenance)
    drawn = None if isinstance(fakes, OnlineFakes) else fakes
    _active[upstream] = Finetuning(run, objective, reference, drawn)
    return _active[upstream]


def leave_if_continued(options: Mapping[str, Any], state: Path) -> None:
    """Ends the process, content, if --ddo-continue was given: `state` says that nothing is left to do."""
    if options["ddo_continue"]:
        if _rank() == 0:
            print(f"ddo: {state}: this round is finished, nothing to do", file=sys.stderr)
        raise SystemExit(0)


def _check_folder(outdir: Path) -> None:
    """Upstream makes it minutes later, when the networks are loaded."""
    there = next(path for path in (outdir, *outdir.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{outdir}: {there} is a file, and a round writes into a folder; name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{outdir}: nothing can be written in {there}; name another folder")


def _as_first_rank(said: bool) -> bool:
    import torch.distributed

    answer = [said]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(answer, src=0)
    return answer[0]


def _check_agreement(statistics: Mapping[str, Tensor]) -> None:
    """With θ = θ_ref every log-ratio is 0 (and the loss (1 + α) ln 2); anything else is another network."""
    rewards = [statistics[name].abs().mean() for name in ("rewards/real", "rewards/fake") if name in statistics]
    mean = max(map(float, rewards), default=0.0)
    if not mean <= AGREEMENT:
        raise UserError(
            f"target and reference are not the same network: rewards of the first step are {mean:.3g} instead of 0; "
            "start the round from the reference, without other weights, dropout or another precision"
        )


def _check_origin(fakes: Fakes | OnlineFakes, reference: Reference, options: Mapping[str, Any]) -> None:
    """The objective means samples of this very reference; others work against it."""
    made_by = fakes.description.get("reference_sha256")
    departs = fakes.description.get("sampler", {}).get(DEPARTS)
    if made_by == reference.sha256 and not departs:
        return
    network = f"sha256 {made_by[:12]}…, the reference's is {reference.sha256[:12]}…" if made_by else "unknown"
    message = f"--ddo-fakes={options['ddo_fakes']}: the network that made them is not known to be --ddo's ({network})"
    if departs:
        message = f"--ddo-fakes={options['ddo_fakes']}: {', '.join(departs)} made them other than the network's own"
    if options.get("ddo_strict"):
        raise UserError(f"{message}; make them anew, or drop --ddo-strict")
    if _rank() == 0:
        print(f"ddo: {message}", file=sys.stderr)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _rank() -> int:
    import torch.distributed

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if distributed else int(os.environ.get("RANK", "0"))


def _objective(hook: Any, options: Mapping[str, Any]) -> Objective:
    offers = reversed(hook.ddo_objectives())  # pluggy asks the latest plugin first; here its answer must come last
    known = {name: factory for offer in offers for name, factory in offer.items()}
    name = options["ddo_objective"]
    if name not in known:
        raise UserError(f"--ddo-objective={name}: unknown; plugins offer {', '.join(sorted(known))}")
    try:
        return known[name](options)
    except ValueError as error:
        raise UserError(f"--ddo-objective={name}: {error}") from None


def _fakes(hook: Any, upstream: str, reference: Reference, options: Mapping[str, Any]) -> Fakes | OnlineFakes:
    source = options.get("ddo_fakes")
    fakes = hook.ddo_fakes(upstream=upstream, source=source, reference=reference, options=options)
    if fakes is None and source is None:
        raise UserError("--ddo needs --ddo-fakes=PATH, samples of the reference to tell real data from")
    if fakes is None:
        raise UserError(f"--ddo-fakes={source}: no such reference set")
    return fakes
