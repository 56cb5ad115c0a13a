"""DDO as a loss object of EDM's native training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch_utils import distributed as dist
from torch_utils import training_stats
from training.loss import EDMLoss

from ddo_integrations.edm.networks import denoiser
from ddo_integrations.nvlabs.compiled import compile_alike, drop_graph
from ddo_plugin import NoiseLevels, Terms, current_session, diffusion_terms, fakes_alone, upstream_device, with_fakes

Augment = Callable[[Tensor], tuple[Tensor, Tensor | None]]  # images -> images and their augmentation labels


class DDOLoss:
    """DDO's loss. It is pickled as upstream's EDMLoss, so that unmodified EDM reads the snapshots."""

    def __init__(self, noise: Mapping[str, float], record: Mapping[str, Any]):
        """Take the session of this process; `record` is an argument so that training_options.json holds it."""
        self.session = current_session("edm")
        self.levels = NoiseLevels(**noise)
        self.paired = self.session.options["ddo_noise"] == "paired"
        self.compiled: bool = self.session.options["ddo_compile"]
        self.progress = self.session.position
        self.trains_on = self.session.objective.trains_on
        compared = self.trains_on == "both"
        self.reference = self.session.reference.network.to(upstream_device()) if compared else None

    def __call__(
        self, net: DistributedDataParallel, images: Tensor, labels: Tensor, augment_pipe: nn.Module | None = None
    ) -> Tensor:
        """Return [N] losses of N real images and as many fakes; the loop sums them and divides by its batch size."""
        augment = augment_pipe or self._not_augmented
        if self.compiled:
            compile_alike(net.module, self.reference)
        terms = (self._own_terms if self.trains_on == "fakes" else self._terms)(net, images, labels, augment)
        outcome = self.session.judge(terms, step=self.progress.step)
        for name, values in outcome.statistics.items():
            training_stats.report(f"DDO/{name}", values)
        self.progress.seen += len(images) * dist.get_world_size()
        return outcome.per_sample()

    def _terms(self, net: DistributedDataParallel, images: Tensor, labels: Tensor, augment: Augment) -> Terms:
        """Return the likelihoods of real images, and of fakes if target and reference are compared."""
        clean, labels = with_fakes(self.session.fakes, images, labels)
        clean, augment_labels = augment(clean)
        target = denoiser(net, labels, augment_labels)
        reference = None if self.reference is None else denoiser(self.reference, labels, augment_labels)
        if self.compiled and reference is not None:
            reference = drop_graph(reference)
        return diffusion_terms(target, reference, clean, len(images), self.levels, self.paired)

    def _own_terms(self, net: DistributedDataParallel, images: Tensor, labels: Tensor, augment: Augment) -> Terms:
        """Return minus upstream's own loss of fakes in the place of the real images."""
        assert self.session.fakes is not None
        fakes, labels = fakes_alone(self.session.fakes, images, labels)
        loss: Tensor = self._own()(net, fakes, labels, augment)
        return Terms(-loss.flatten(1).sum(1))

    def _not_augmented(self, clean: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return augmentation labels of zeros. Without labels, one weight gets no gradient, which DDP waits for."""
        width = self.session.reference.info.augment_dim
        return clean, clean.new_zeros(len(clean), width) if width else None

    def _own(self) -> EDMLoss:
        return EDMLoss(self.levels.P_mean, self.levels.P_std, self.levels.sigma_data)

    def __reduce__(self) -> Any:
        return self._own().__reduce__()
