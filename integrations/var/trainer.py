"""The training step of VAR's native loop in a round of DDO."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import dist
import models
import torch
import trainer
from torch import Tensor
from trainer import VARTrainer

from ddo_integrations.var import networks, states
from ddo_integrations.var.fakes import Batch, DrawnFakes, Source, StoredFakes, inputs_of
from ddo_integrations.var.reports import Reports
from ddo_integrations.var.scoring import Scorer
from ddo_plugin import Outcome, current_session, drop_labels, in_one_line, token_terms

DROPOUT = 0xFFFFFFFF  # turns the seed of a batch into another one, so that dropout repeats no number of the fakes


class DDOTrainer(VARTrainer):  # type: ignore[misc]  # upstream's types are not checked
    """Upstream's trainer with DDO's training step; the loop around it stays as it is."""

    @in_one_line()
    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.session = current_session("var")
        self.round = self.session.position
        self.target = networks.plain(self.var_wo_ddp)
        networks.fill(self.target, self.session.reference)
        self.trains_on = self.session.objective.trains_on
        if self.trains_on != "fakes":
            networks.make_exact(self.target)
        sampled = self.trains_on == "fakes" and self.session.fakes is None
        self.reference = networks.frozen_copy(self.target) if sampled or self.trains_on == "both" else None
        self.score = Scorer(self.var, self.target)
        self.score_by_reference = Scorer(self.reference, self.reference)
        self.fakes = self._source()
        self.reports = Reports(tail=f"L_{self.resos[-1]}")

    def _source(self) -> Source | None:
        if self.trains_on == "real":
            return None
        stored, options = self.session.fakes, self.session.options
        if stored is not None:
            return StoredFakes(stored, self.quantize_local)
        return DrawnFakes(
            self.reference,
            self.vae_local,
            from_pixels=options["ddo_fakes_from"] == "pixels",
            guidance=options["ddo_fakes_cfg"],
            in_fp32=options["ddo_fakes_precision"] == "fp32",
        )

    @in_one_line()
    def train_step(
        self,
        it: int,
        g_it: int,
        stepping: bool,
        metric_lg: Any,
        tb_lg: Any,
        inp_B3HW: Tensor,
        label_B: Tensor,
        **_: Any,
    ) -> tuple[Tensor | None, float | None]:
        """Train on one batch of the loop. Half of the labels are dropped; the samples that keep theirs get fakes.

        An objective on fakes alone trains as upstream does, on fakes of all labels in the place of the real images.
        """
        generator = self.round.generator(g_it, dist.get_rank(), label_B.device)
        if self.trains_on == "fakes":
            kept, real = None, self._fakes_alone(label_B, generator)
        else:
            labels, kept = drop_labels(label_B, self.target.num_classes, generator=generator)
            real = self._tokenize(inp_B3HW, labels)
        with self.var_opt.amp_ctx, self._own_dropout(generator):
            batch, logp_ref = (real, None) if kept is None else self._with_fakes(real, label_B[kept], generator)
            self.var.require_backward_grad_sync = stepping
            logp, hidden = self.score(batch)  # [N + M, L]
            if it in metric_lg.log_iters:
                self._log_accuracy(metric_lg, hidden[: len(real)].detach(), real.tokens)
        step = g_it // self.round.accumulation
        outcome = self.session.judge(token_terms(logp, logp_ref, len(real), kept), step)
        grad_norm, scale_log2 = self.var_opt.backward_clip_step(loss=self._scaled(outcome), stepping=stepping)
        self._log(outcome, logp[: len(real)].detach())
        if stepping:
            self.reports.end_step(step, grad_norm)
        if it in metric_lg.log_iters or self.reports.is_full or (stepping and self.round.is_resumable_after(step)):
            self.reports.flush(metric_lg, tb_lg)
        if stepping:
            self._save(g_it + 1)
        return grad_norm, scale_log2

    def _tokenize(self, images: Tensor, labels: Tensor) -> Batch:
        drawn = torch.cat(self.vae_local.img_to_idxBl(images), dim=1)
        return Batch(labels, drawn, inputs_of(self.quantize_local, drawn))

    def _with_fakes(self, real: Batch, labels: Tensor, generator: torch.Generator) -> tuple[Batch, Tensor | None]:
        """Return the batch with one fake for each label, and the reference's log-probabilities [N + M, L]."""
        if self.fakes is None:
            return real, None
        fake, logp_fake = self.fakes.draw(labels, generator)
        both = real.joined(fake)
        logp_ref = (
            self._reference_logp(both) if logp_fake is None else torch.cat([self._reference_logp(real), logp_fake])
        )
        torch.clear_autocast_cache()  # or the reference's converted weights stay in memory while the target trains
        return both, logp_ref

    def _fakes_alone(self, labels: Tensor, generator: torch.Generator) -> Batch:
        """Return one fake for each label, as the batch that takes the place of the real images."""
        assert self.fakes is not None
        with self.var_opt.amp_ctx:
            fakes, _ = self.fakes.draw(labels, generator)
        torch.clear_autocast_cache()
        return fakes

    def _own_dropout(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Let upstream's own dropout, of labels and of paths, draw numbers that a resumed run repeats."""
        return _seeded(generator) if self.trains_on == "fakes" else nullcontext()

    @torch.no_grad()
    def _reference_logp(self, batch: Batch) -> Tensor:
        return self.score_by_reference(batch)[0]

    def _scaled(self, outcome: Outcome) -> Tensor:
        """Scale the loss: DDO's gradients grow with α and overflow in half precision; MLE's are means over tokens."""
        scale = max(self.session.options["ddo_alpha"], 1) if self.trains_on == "both" else self.L
        return outcome.mean() / scale

    def _log(self, outcome: Outcome, logp: Tensor) -> None:
        """Keep the statistics of a batch; the cross-entropies of what it trains on have upstream's names."""
        nats = -logp.mean(0)  # [L]
        cross_entropy = {"Lm": nats.mean()}
        for side, (begin, end) in zip(self.resos, self.begin_ends, strict=True):
            cross_entropy[f"L_{side}"] = nats[begin:end].mean()
        own = {name: values.float().mean() for name, values in outcome.statistics.items() if values.numel()}
        self.reports.add(own, cross_entropy)

    def _log_accuracy(self, meters: Any, hidden: Tensor, truth: Tensor) -> None:
        hits = (self.score.most_likely(hidden) == truth).float() * 100
        meters.update(Accm=hits.mean().item(), Acct=hits[:, -self.last_l :].mean().item())

    def _save(self, batches_done: int) -> None:
        """Write the snapshots and training states that are due after a batch."""
        position, outdir = self.round, self.session.outdir
        step = batches_done // position.accumulation
        if position.snapshot_is_due(step) and dist.is_master():
            self.session.report_snapshot(networks.write(self.target, outdir, step), step)
        if position.state_is_due(step):
            random = {"begin": _of_all_ranks(position.random), "now": _of_all_ranks(torch.get_rng_state())}
            self.session.report_pause(step)
            if dist.is_master():
                states.write(outdir, batches_done, self.state_dict(), random)
        if step == position.steps:
            self.session.report_pause(step)

    def state_dict(self) -> dict[str, Any]:
        """Return upstream's state without the image tokenizer, which is not read back, plus a record of the round."""
        state: dict[str, Any] = super().state_dict()
        del state["vae_local"]
        return {**state, states.OURS: {"reference": self.session.reference.sha256, "settings": self.session.settings}}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, skip_vae: bool = False) -> None:
        """Restore a training state; upstream calls this when a run resumes."""
        super().load_state_dict(state, strict=strict, skip_vae=True)
        torch.set_rng_state(state[states.OURS]["now"][dist.get_rank()])


def install(classes: int) -> None:
    """Replace what the loop looks up by name after it has loaded its data: the trainer, and the network's classes."""

    def build(**settings: Any) -> DDOTrainer:
        trainer.VARTrainer = VARTrainer  # its constructor refers to itself by this name
        return DDOTrainer(**settings)

    trainer.VARTrainer = build
    models.build_vae_var = functools.partial(_build, models.build_vae_var, classes)


def _build(upstreams: Any, classes: int, **settings: Any) -> Any:
    """Build the networks for this number of classes; upstream's loop always asks for 1000."""
    return upstreams(**settings | {"num_classes": classes})


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Draw torch's global random numbers from a seed of the generator's batch, and restore their state afterwards."""
    device = generator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed() ^ DROPOUT)
        yield


def _of_all_ranks(state: Tensor | None) -> list[Tensor]:
    assert state is not None
    states = dist.allgather(state.unsqueeze(0)).cpu()
    return [row.clone() for row in states]  # torch reads the random state of a view from the wrong offset
