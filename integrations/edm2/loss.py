"""DDO as a loss object of EDM2's native training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch_utils import distributed as dist
from torch_utils import training_stats
from training.training_loop import EDM2Loss

from ddo_integrations.edm2 import events
from ddo_plugin import Denoiser, NoiseLevels, with_fakes
from ddo_plugin.finetuning import session as finetuning
from ddo_plugin.objective import diffusion


class DDOLoss:
    """What the loop calls in place of EDM2Loss. Pickles as one, so that pristine upstream reads the snapshots."""

    def __init__(self, noise: Mapping[str, float], record: Mapping[str, Any]):
        """`record` is not read: it stands here so that training_options.json holds it."""
        self.run = finetuning.active("edm2")
        self.progress = events.active()
        self.levels = NoiseLevels(**noise)
        self.reference = self.run.reference.network if self.run.objective.needs_fakes else None

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """[N] losses of N real images and as many fakes; the loop sums them and divides by its batch."""
        self.progress.tell()
        clean, labels = with_fakes(self.run.fakes, images, labels)
        reference = None if self.reference is None else _frozen(self.reference.to(images.device), labels)
        terms = diffusion.terms(_trained(net, labels), reference, clean, len(images), self.levels)
        outcome = self.run.judge(terms, step=self.progress.step)
        for name, values in outcome.statistics.items():
            training_stats.report(f"DDO/{name}", values)
        self.progress.nimg += len(images) * dist.get_world_size()
        return outcome.per_sample()

    def state_dict(self) -> dict[str, Any]:
        """What a training state holds of the round. The loop asks for it before it writes one."""
        self.progress.pause()
        return {
            "nimg": self.progress.nimg,
            "reference": self.run.reference.sha256,
            "settings": self.run.settings(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.progress.resume(state["nimg"])

    def __reduce__(self) -> Any:
        levels = self.levels
        return EDM2Loss(P_mean=levels.P_mean, P_std=levels.P_std, sigma_data=levels.sigma_data).__reduce__()


# Both in fp32, even if they sample in half: the loss needs its digits.


def _frozen(net: nn.Module, labels: Tensor) -> Denoiser:
    return lambda noisy, sigma: net(noisy, sigma, labels, force_fp32=True)


def _trained(net: nn.Module, labels: Tensor) -> Denoiser:
    """The uncertainty takes no part in the loss but must in the graph, or DDP waits for its gradient."""

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        denoised, logvar = net(noisy, sigma, labels, force_fp32=True, return_logvar=True)
        return denoised + 0 * logvar.sum()

    return denoise
