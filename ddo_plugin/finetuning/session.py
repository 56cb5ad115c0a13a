"""The DDO run of this process: reference, fakes, objective and settings, and the events that it reports to plugins."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ddo_plugin.base import ranks
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.base.option_types import AUTO
from ddo_plugin.finetuning.calibration import Calibration
from ddo_plugin.finetuning.options import ddo_values
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import DEPARTS, Fakes, OnlineFakes, Reference, Run

if TYPE_CHECKING:
    from torch import Tensor

    from ddo_plugin.objective.ddo import Objective, Outcome, Terms


FREE = (  # options that may change when a run resumes
    *("ddo", "ddo_sha256", "ddo_trust", "ddo_strict", "ddo_stop_on_collapse", "ddo_continue"),
    "ddo_fakes",  # compared by content
    "ddo_pause_after",
    "ddo_compile",  # only rounding differs
)
BEFORE = {"ddo_noise": "independent"}  # value of an option in rounds that began before the option existed
# Bound on the mean |reward| of the first step, where target and reference must agree; bf16 alone reaches 0.025.
AGREEMENT = 0.05


@dataclass
class Session:
    """The DDO run of this process; there is one at most."""

    spec: Run  # the record of the run that hooks receive
    objective: Objective
    reference: Reference
    fakes: Fakes | None  # None: the objective needs none, or the integration samples the reference itself
    settings: dict[str, Any] = field(default_factory=dict)  # settings that a resumed run must share, by name
    position: Any = None  # the integration's own object that knows where the training loop is
    calibration: Calibration | None = None  # chooses β in the first steps, if --ddo-beta=auto
    _pauses: bool = field(default=False, init=False)  # the run ends before its next step; a later start continues it

    @property
    def upstream(self) -> str:
        """The name of the upstream."""
        return self.spec.upstream

    @property
    def outdir(self) -> Path:
        """The folder that the run writes to."""
        return self.spec.outdir

    @property
    def options(self) -> Mapping[str, Any]:
        """The values of the `--ddo…` options, by parameter name."""
        return self.spec.options

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The reference, the fakes and the versions, as sidecars record them."""
        return self.spec.provenance

    def judge(self, terms: Terms, step: int) -> Outcome:
        """Apply the objective, and on the first rank report its statistics to the plugins."""
        if self._pauses:
            self._stop()
        outcome = self.objective(terms) if self.calibration is None else self.calibration.judge(terms, step)
        if step == 0:
            _check_agreement(outcome.statistics)
        if ranks.is_first():
            plugins.manager().hook.ddo_statistics(run=self.spec, step=step, statistics=outcome.statistics)
        return outcome

    def check_state(self, state: Path, record: Mapping[str, Any] | None, remedy: str) -> None:
        """Refuse to resume from a training state of another run.

        `record` is what the state records about its run, {"reference": SHA-256, "settings": {...}}, or None if it
        records nothing. `remedy` is the end of the error message: what the user should do.
        """
        if record is None:
            raise UserError(f"{state} is not a training state of a DDO run; {remedy}")
        if record["reference"] != self.reference.sha256:
            raise UserError(
                f"{state} belongs to a round with another reference (SHA-256 {record['reference'][:12]}…) than "
                f"--ddo={self.reference.source}; {remedy}"
            )
        earlier = (BEFORE if self.objective.trains_on == "both" else {}) | record.get("settings", {})
        for name, value in self.settings.items():
            if name in earlier and _plain(earlier[name]) != _plain(value):
                flag = "--" + name.replace("_", "-") if name.startswith("ddo_") else name
                raise UserError(
                    f"{state} belongs to a round with {flag}={earlier[name]}, not {value}; use the same value, or "
                    f"{remedy}"
                )

    def snapshots(self) -> list[Path]:
        """Return the snapshots in the output folder that have a sidecar, oldest first."""
        from ddo_plugin.snapshots import sidecar

        return sidecar.snapshots(self.outdir)

    def is_intact(self, snapshot: Path) -> bool:
        """Return whether a snapshot still has the SHA-256 that its sidecar records."""
        from ddo_plugin.snapshots import sidecar

        return sha256_file(snapshot) == sidecar.sha256(snapshot)

    def step_of(self, snapshot: Path) -> int:
        """Return after how many optimizer steps a snapshot was written, from its sidecar."""
        from ddo_plugin.snapshots import sidecar

        return sidecar.step(snapshot)

    def report_snapshot(self, path: Path, step: int) -> None:
        """Tell the plugins that a snapshot was written; called on the first rank only."""
        run = self.spec
        if self.calibration is not None:
            run = replace(run, provenance={**run.provenance, "calibration": self.calibration.record()})
        plugins.manager().hook.ddo_snapshot(run=run, path=path, step=step)

    def report_pause(self, step: int) -> None:
        """Tell the plugins that the run can be interrupted here; called on every rank.

        Call it just before or after a training state is written, and at the end of the run.
        """
        if ranks.is_first():
            plugins.manager().hook.ddo_pause(run=self.spec, step=step)
        self._pauses = self._has_enough_snapshots(step)

    def stop_if_paused(self, step: int) -> None:
        """End the process if a run that resumes at this step already has its `--ddo-pause-after` snapshots."""
        if self._has_enough_snapshots(step):
            self._stop()

    def stop_if_continued(self, state: Path) -> None:
        """End the process with status 0 if `--ddo-continue` was given: `state` shows that the round is finished."""
        if self.options["ddo_continue"]:
            if ranks.is_first():
                print(f"ddo: {state}: this round is finished; nothing to do", file=sys.stderr)
            raise SystemExit(0)

    def _has_enough_snapshots(self, step: int) -> bool:
        """Return whether there are as many snapshots up to this step as --ddo-pause-after asks for."""
        from ddo_plugin.snapshots import sidecar

        wanted = self.options.get("ddo_pause_after")
        if wanted is None:
            return False
        return _answer_of_first_rank(sum(written <= step for written in sidecar.steps(self.outdir)) >= wanted)

    def _stop(self) -> None:
        if ranks.is_first():
            print(
                f"ddo: {self.outdir}: paused; run the same command without --ddo-pause-after to continue",
                file=sys.stderr,
            )
        raise SystemExit(0)


_current: Session | None = None


def current_session(upstream: str) -> Session:
    """Return the session of this process, for objects that upstream's loop builds by name."""
    if _current is None or _current.upstream != upstream:
        raise RuntimeError(f"this process runs no DDO session of {upstream}; prepare_session comes first")
    return _current


def prepare_session(upstream: str, outdir: Path, options: Mapping[str, Any]) -> Session:
    """Build objective, reference and fakes through the hooks, and make them the session of this process."""
    global _current
    _check_folder(outdir)
    hook = plugins.manager().hook
    build = _objective_factory(hook, options)
    usual = _usual_beta(hook, upstream) if options.get("ddo_beta") == AUTO else None
    objective = build(options.get("ddo_beta") if usual is None else usual)
    source = options["ddo"]
    reference = hook.ddo_reference(upstream=upstream, source=source, options=options)
    if reference is None:
        raise UserError(
            f"--ddo={source}: no plugin can load a reference for {upstream}; `ddo plugins` lists the installed plugins"
        )
    fakes = None if objective.trains_on == "real" else _fakes(hook, upstream, reference, options)
    if fakes is not None:
        _check_origin(fakes, reference, options, any_sampler=objective.trains_on == "fakes")
    provenance = {
        "reference": {"source": reference.source, "sha256": reference.sha256},
        "fakes": dict(fakes.description) if fakes else None,
        "versions": {
            "ddo-plugin": version("ddo-plugin"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }
    spec = Run(upstream, outdir, ddo_values(options), provenance)
    drawn = None if isinstance(fakes, OnlineFakes) else fakes
    _current = Session(spec, objective, reference, drawn, _settings(spec))
    if usual is not None and objective.trains_on == "both":
        _current.calibration = Calibration(build, usual, options["ddo_probe"], outdir)
    return _current


def _plain(value: Any) -> Any:
    """Return a value as it is after writing it to JSON and reading it back: a tuple becomes a list."""
    return list(value) if isinstance(value, tuple) else value


def _settings(spec: Run) -> dict[str, Any]:
    """Return the settings that a resumed run must share: our options, and the digest of the fakes."""
    options = {name: value for name, value in spec.options.items() if name not in FREE}
    if options.get("ddo_beta") != AUTO:
        options.pop("ddo_probe", None)  # without a probe, its length has no effect
    fakes = spec.provenance.get("fakes") or {}
    return {**options, "ddo_fakes": fakes.get("sha256") or fakes.get("images")}


def _check_folder(outdir: Path) -> None:
    """Refuse an output folder that cannot be written; upstream would find out minutes later."""
    nearest = next(path for path in (outdir, *outdir.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"{outdir}: {nearest} is a file, but a round writes to a folder; pass another path")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{outdir}: {nearest} is not writable; pass another folder")


def _answer_of_first_rank(answer: bool) -> bool:
    import torch.distributed

    answers = [answer]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(answers, src=0)
    return answers[0]


def _check_agreement(statistics: Mapping[str, Tensor]) -> None:
    """Refuse a first step whose log-ratios are not 0: with θ = θ_ref they are, and the loss is (1 + α) ln 2."""
    rewards = [statistics[name].abs().mean() for name in ("rewards/real", "rewards/fake") if name in statistics]
    mean = max(map(float, rewards), default=0.0)
    if not mean <= AGREEMENT:
        raise UserError(
            f"target and reference are not the same network: rewards of the first step are {mean:.3g} instead of 0; "
            "start the round from the reference, without other weights, dropout or another precision"
        )


def _check_origin(
    fakes: Fakes | OnlineFakes, reference: Reference, options: Mapping[str, Any], any_sampler: bool
) -> None:
    """Warn of fakes that are not known to be samples of the reference, or refuse them if --ddo-strict is given.

    Only an objective that compares with the reference needs samples of its very distribution; Neon trains on what the
    usual sampler gives, which `any_sampler` allows.
    """
    sampled_from = fakes.description.get("reference_sha256")
    departures = None if any_sampler else fakes.description.get("sampler", {}).get(DEPARTS)
    if sampled_from == reference.sha256 and not departures:
        return
    source = f"--ddo-fakes={options['ddo_fakes']}"
    if departures:
        flags = ", ".join("--" + name.replace("_", "-") for name in departures)
        message = f"{source}: the fakes were sampled with {flags}, so they do not follow the reference's distribution"
    elif sampled_from:
        message = (
            f"{source}: the fakes were sampled from another network (SHA-256 {sampled_from[:12]}…) than the "
            f"reference ({reference.sha256[:12]}…)"
        )
    else:
        message = f"{source}: it is unknown whether the fakes were sampled from the reference"
    if options.get("ddo_strict"):
        raise UserError(f"{message}; sample the reference anew, or drop --ddo-strict")
    if ranks.is_first():
        print(f"ddo: {message}", file=sys.stderr)


def _objective_factory(hook: Any, options: Mapping[str, Any]) -> Callable[[Any], Objective]:
    """Return a function that builds the objective with a β."""
    from ddo_plugin.objective.ddo import TrainsOn

    # pluggy lists the latest plugin first. Its objectives must come last here, so that they replace earlier ones.
    offers = reversed(hook.ddo_objectives())
    known = {name: factory for offer in offers for name, factory in offer.items()}
    name = options["ddo_objective"]
    if name not in known:
        raise UserError(f"--ddo-objective={name}: unknown objective; available are {', '.join(sorted(known))}")

    def build(beta: Any) -> Objective:
        try:
            objective = known[name]({**options, "ddo_beta": beta})
        except ValueError as error:
            raise UserError(f"--ddo-objective={name}: {error}") from None
        if (trains_on := getattr(objective, "trains_on", None)) not in get_args(TrainsOn):
            raise UserError(
                f"--ddo-objective={name}: its attribute trains_on is {trains_on!r}, but must be one of "
                f"{', '.join(get_args(TrainsOn))} (docs/hooks.md); its plugin must be changed"
            )
        return objective

    return build


def _usual_beta(hook: Any, upstream: str) -> float:
    """Return the default of --ddo-beta."""
    options = plugins.collect(hook.ddo_options(upstream=upstream))
    return next(float(option.default) for option in options if option.name == "ddo_beta")


def _fakes(hook: Any, upstream: str, reference: Reference, options: Mapping[str, Any]) -> Fakes | OnlineFakes:
    source = options.get("ddo_fakes")
    fakes = hook.ddo_fakes(upstream=upstream, source=source, reference=reference, options=options)
    if fakes is None and source is None:
        raise UserError("--ddo needs --ddo-fakes=PATH: samples of the reference, which `ddo refset make` makes")
    if fakes is None:
        raise UserError(f"--ddo-fakes={source}: no such reference set; `ddo refset make` makes one")
    return fakes
