"""DDO as a loss object of EDM's native training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch_utils import distributed as dist
from torch_utils import training_stats
from training.loss import EDMLoss

from ddo_integrations.edm import events
from ddo_integrations.edm.networks import denoiser
from ddo_plugin import NoiseLevels, with_fakes
from ddo_plugin.finetuning import session as finetuning
from ddo_plugin.objective import diffusion


class DDOLoss:
    """What the loop calls in place of EDMLoss. Pickles as one, so that pristine upstream reads the snapshots."""

    def __init__(self, noise: Mapping[str, float], record: Mapping[str, Any]):
        """`record` is not read: it stands here so that training_options.json holds it."""
        self.run = finetuning.active("edm")
        self.levels = NoiseLevels(**noise)
        self.progress = events.active()
        self.reference = self.run.reference.network if self.run.objective.needs_fakes else None

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor, augment_pipe: nn.Module | None = None) -> Tensor:
        """[N] losses of N real images and as many fakes; the loop sums them and divides by its batch."""
        clean, labels = with_fakes(self.run.fakes, images, labels)
        clean, augment_labels = augment_pipe(clean) if augment_pipe is not None else (clean, self._not_augmented(clean))
        target = denoiser(net, labels, augment_labels)
        reference = (
            None if self.reference is None else denoiser(self.reference.to(images.device), labels, augment_labels)
        )
        terms = diffusion.terms(target, reference, clean, len(images), self.levels)
        outcome = self.run.judge(terms, step=self.progress.step)
        for name, values in outcome.statistics.items():
            training_stats.report(f"DDO/{name}", values)
        self.progress.seen += len(images) * dist.get_world_size()
        return outcome.per_sample()

    def _not_augmented(self, clean: Tensor) -> Tensor | None:
        """What a pipe says of images that it left alone. Without, DDP waits in vain for the gradient of a weight."""
        width = self.run.reference.info.augment_dim
        return clean.new_zeros(len(clean), width) if width else None

    def __reduce__(self) -> Any:
        return EDMLoss(self.levels.P_mean, self.levels.P_std, self.levels.sigma_data).__reduce__()
