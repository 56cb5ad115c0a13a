"""The steps of a plan as tasks: the integration's commands, with outputs named by a hash of their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddo_plugin.base.commands import Command, flags, module_command
from ddo_plugin.base.errors import UserError
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import EvaluationStep, RefsetStep, RoundStep
from ddo_plugin.jobs.runner import RunFolder, Task
from ddo_plugin.selfplay.recipe.plan import Candidate, Plan, Report, Round, Search
from ddo_plugin.selfplay.variants import Variant, is_merged
from ddo_plugin.snapshots import sidecar

REFSET, TRAINING, EVALUATION, COMPARISON = "reference set", "training", "evaluation", "comparison"
JUDGEMENT, MERGE = "judgement", "merge"
MERGE_COST = 0.0  # much less than that of a training
FILES = {EVALUATION: "eval", COMPARISON: "compare", JUDGEMENT: "judge"}
NETWORKS = ("network", "reference")
LAUNCH = ("checkout", "torchrun")  # settings that say how a command starts, which does not change its output


class Steps:
    """Builds the tasks of one plan in one folder. It runs none of them."""

    def __init__(self, plan: Plan, folder: RunFolder):
        self.plan, self.folder = plan, folder
        self._hook = plugins.manager().hook

    def refset(self, number: int, network: Path) -> Task | None:
        """Return the task that makes a round's reference set; None if no candidate needs one."""
        plan, this, seed = self.plan, self.plan.at(number), self.plan.seed + number
        if not this.needs_refset:
            return None
        out = self._out(number, "refset", {"network": network, "count": this.refset_count, "seed": seed}, this.refset)
        step = RefsetStep(plan.upstream, network, out, this.refset_count, seed, this.refset)
        command = self._required(self._hook.ddo_refset_command(step=step), "ddo_refset_command")
        return Task(self._title(number, REFSET), out, command, plan.costs.refset, REFSET, (network,))

    def training(
        self, number: int, candidate: Candidate, reference: Path, fakes: Path | None, part: int | None = None
    ) -> Task:
        """Return the task that finetunes a candidate. With `part`, it pauses after this number of snapshots.

        Its output is the folder of its snapshots.
        """
        plan, seed, settings = self.plan, self.plan.seed + number, self.plan.at(number).training
        fakes = fakes if candidate.needs_fakes else None
        made_from = {"reference": reference, "fakes": fakes, "seed": seed, **asdict(candidate)}
        out = self._out(number, "train", made_from, settings)
        setting = (candidate.objective, candidate.alpha, candidate.beta)
        pause = {} if part is None else {"ddo-pause-after": part}
        step = RoundStep(plan.upstream, reference, fakes, out, *setting, seed, {**settings, **pause})
        command = self._required(self._hook.ddo_round_command(step=step), "ddo_round_command")
        title = self._title(number, TRAINING, candidate)
        return Task(title, out, command, plan.costs.training, TRAINING, (reference,), part)

    def merge(self, number: int, variant: Variant, reference: Path) -> Task:
        """Return the task that merges a snapshot with the reference of its round."""
        plan, training = self.plan, self.plan.at(number).training
        own = {"w": variant.w, "out": variant.network, "upstream": plan.upstream, "checkout": training.get("checkout")}
        trust = ["--ddo-trust"] if training.get("ddo-trust") else []
        command = module_command("ddo_plugin", ["merge", str(reference), str(variant.snapshot), *flags(own), *trust])
        title = f"{self._title(number, MERGE)} at w={variant.w:g} of {variant.snapshot.name}"
        return Task(title, variant.network, command, MERGE_COST, MERGE, (reference, variant.snapshot))

    def evaluation(
        self, number: int, network: Path, candidate: Candidate | None = None, search: Search | None = None
    ) -> Task:
        """Return the task that evaluates a network; with `search`, the cheaper evaluation that compares candidates."""
        costs = self.plan.costs
        kind, cost = (COMPARISON, costs.comparison) if search else (EVALUATION, costs.evaluation)
        title = self._title(number, kind, candidate)
        return self._evaluation(title, kind, network, search or self.plan.at(number), cost)

    def judgement(self, role: str, network: Path, report: Report) -> Task:
        """Return the task that judges a network at the end of the run. The role is one of `Plan.roles`."""
        title = f"{self.plan.name} {JUDGEMENT} of the {role}"
        return self._evaluation(title, JUDGEMENT, network, report, self.plan.judgement_cost)

    def _evaluation(self, title: str, kind: str, network: Path, how: Round | Search | Report, cost: float) -> Task:
        """Return an evaluation. Its output lies beside a snapshot; for the base, it lies in the run's folder."""
        stem = self.folder.root / "base" / network.stem if network == self.plan.base else network.with_suffix("")
        # A merged network has no digest before it is made, but its path tells its parents and its w.
        name = "merged" if network != self.plan.base and is_merged(network) else "network"
        digest = self._key({name: network, "seeds": how.evaluation_seeds}, how.evaluation)
        out = stem.with_name(f"{stem.name}-{FILES[kind]}-{digest}.json")
        step = EvaluationStep(self.plan.upstream, network, out, how.evaluation_seeds, how.evaluation)
        command = self._required(self._hook.ddo_evaluation_command(step=step), "ddo_evaluation_command")
        return Task(title, out, command, cost, kind, (network,))

    def _out(self, number: int, what: str, made_from: Mapping[str, Any], settings: Mapping[str, Any]) -> Path:
        return self.folder.root / self.plan.name / f"r{number:02d}-{what}-{self._key(made_from, settings)}"

    def _key(self, made_from: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        networks = {name: self._identity(made_from[name]) for name in NETWORKS if name in made_from}
        chosen = {f"--{name}": value for name, value in settings.items() if name not in LAUNCH}
        return self.folder.key({**made_from, **networks, **chosen})

    def _identity(self, network: Path) -> Path | str:
        """Return what identifies a network in a key: its digest if that is known, otherwise its path."""
        sha256 = self.plan.base_sha256 if network == self.plan.base else sidecar.sha256(network)
        return f"sha256 {sha256}" if sha256 else network

    def _title(self, number: int, what: str, candidate: Candidate | None = None) -> str:
        where = f"round {number}" if number else "base"
        tried = f" of {candidate}" if candidate and len(self.plan.at(number).candidates) > 1 else ""
        return f"{self.plan.name} {where} {what}{tried}"

    def _required(self, command: Command | None, hook: str) -> Command:
        if command is None:
            raise UserError(f"no plugin answers {hook} for upstream '{self.plan.upstream}'; `ddo plugins` lists them")
        return command
