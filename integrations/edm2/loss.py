"""DDO as a loss object of EDM2's native training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch_utils import distributed as dist
from torch_utils import training_stats
from training.training_loop import EDM2Loss

from ddo_integrations.edm2.networks import normalise
from ddo_integrations.nvlabs.compiled import compile_alike, drop_graph
from ddo_plugin import (
    Denoiser,
    NoiseLevels,
    Terms,
    current_session,
    diffusion_terms,
    fakes_alone,
    upstream_device,
    with_fakes,
)


class DDOLoss:
    """DDO's loss. It is pickled as upstream's EDM2Loss, so that unmodified EDM2 reads the snapshots."""

    def __init__(self, noise: Mapping[str, float], record: Mapping[str, Any]):
        """Take the session of this process; `record` is an argument so that training_options.json holds it."""
        self.session = current_session("edm2")
        self.progress = self.session.position
        self.compiled: bool = self.session.options["ddo_compile"]
        self.levels = NoiseLevels(**noise)
        self.paired = self.session.options["ddo_noise"] == "paired"
        self.trains_on = self.session.objective.trains_on
        compared = self.trains_on == "both"
        self.reference = self.session.reference.network.to(upstream_device()) if compared else None

    def __call__(self, net: DistributedDataParallel, images: Tensor, labels: Tensor) -> Tensor:
        """Return [N] losses of N real images and as many fakes; the loop sums them and divides by its batch size."""
        self.progress.report()
        if self.compiled:
            compile_alike(net.module, self.reference)
            normalise(net.module)
        terms = (self._own_terms if self.trains_on == "fakes" else self._terms)(net, images, labels)
        outcome = self.session.judge(terms, step=self.progress.step)
        for name, values in outcome.statistics.items():
            training_stats.report(f"DDO/{name}", values)
        self.progress.nimg += len(images) * dist.get_world_size()
        return outcome.per_sample()

    def _terms(self, net: DistributedDataParallel, images: Tensor, labels: Tensor) -> Terms:
        """Return the likelihoods of real images, and of fakes if target and reference are compared."""
        clean, labels = with_fakes(self.session.fakes, images, labels)
        target = _denoiser(net, labels)
        reference = None if self.reference is None else _denoiser(self.reference, labels)
        if self.compiled and reference is not None:
            reference = drop_graph(reference)
        return diffusion_terms(target, reference, clean, len(images), self.levels, self.paired)

    def _own_terms(self, net: DistributedDataParallel, images: Tensor, labels: Tensor) -> Terms:
        """Return minus upstream's own loss, with its uncertainty, of fakes in the place of the real images."""
        assert self.session.fakes is not None
        loss: Tensor = self._own()(net, *fakes_alone(self.session.fakes, images, labels))
        return Terms(-loss.flatten(1).sum(1))

    def state_dict(self) -> dict[str, Any]:
        """Return what a training state records of the round; the loop calls this before it writes the state."""
        self.progress.pause()
        return {
            "nimg": self.progress.nimg,
            "reference": self.session.reference.sha256,
            "settings": self.session.settings,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.progress.resume(state["nimg"])

    def _own(self) -> EDM2Loss:
        levels = self.levels
        return EDM2Loss(P_mean=levels.P_mean, P_std=levels.P_std, sigma_data=levels.sigma_data)

    def __reduce__(self) -> Any:
        return self._own().__reduce__()


def _denoiser(net: nn.Module, labels: Tensor) -> Denoiser:
    """Bind a network to its labels, in fp32 even if it samples in half precision: the loss needs the digits.

    The uncertainty stays in the graph, but out of the loss. Otherwise DDP would wait for its gradient forever.
    """

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        denoised, logvar = net(noisy, sigma, labels, force_fp32=True, return_logvar=True)
        return denoised + 0 * logvar.sum()

    return denoise
