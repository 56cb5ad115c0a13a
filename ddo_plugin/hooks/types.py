"""The records that travel through the hooks. Light to import: torch and numpy appear as types only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import numpy as np
    import torch
    from torch import Tensor

    from ddo_plugin.hooks.streams import SampleGenerators
    from ddo_plugin.objective.ddo import Objective

ObjectiveFactory = Callable[[Mapping[str, Any]], "Objective"]  # the run's options -> an objective
DEPARTS = "departs_by"
FeatureExtractor = Callable[["np.ndarray"], "np.ndarray"]  # uint8 images [N, C, H, W] -> features [N, D]


@runtime_checkable
class Classifier(Protocol):
    """A feature extractor that classifies too, which the Inception Score asks for."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features [N, D]."""

    def with_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [N, D] and class logits [N, K], before any softmax."""


@dataclass(frozen=True)
class Upstream:
    """A repository (or script) that an integration finetunes networks of, and what the core must know of it."""

    name: str  # the name in hooks, recipes and `inject`
    title: str  # the name for people
    script: str  # the training script: a path in the checkout, or any path if there are no landmarks
    landmarks: Mapping[str, str] = field(default_factory=dict, hash=False)  # file -> regex that a line of it matches
    patch: Traversable | None = None  # insert-only diff, as `python -m ddo_plugin.checkouts.patching.make` writes it
    digests: Traversable | None = None  # the JSON file beside the patch
    needs: Mapping[str, str] = field(default_factory=dict, hash=False)  # package imported inside a function -> file
    paths: tuple[str, ...] = ()  # options whose value is a path; a recipe resolves them against its own folder
    # Training option that a recipe must not set -> why. What self-play sets for every upstream is known: seed, ddo, ...
    reserved: Mapping[str, str] = field(default_factory=dict, hash=False)
    compat: tuple[str, ...] = ()  # the compat fixes that its code needs, by their names in `ddo doctor`
    # Class that its network pickles hold -> the module of the checkout that defines it. No other class is loaded.
    network_classes: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Reference:
    """The frozen copy from the start of the round: `eval()`, no gradients, never in a checkpoint."""

    network: Any  # an nn.Module; None where upstream's loop builds it, and the integration fills it from `info`
    source: str  # path or URL it was loaded from
    sha256: str  # of the file
    info: Any = None  # what its integration knows of it besides


class Fakes(Protocol):
    """Samples of the reference. Draws from torch's global generator, so that a resumed run repeats itself."""

    @property
    def description(self) -> Mapping[str, Any]:
        """Where they come from, for the sidecars; `reference_sha256` says of which network, if it is known."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample as it is stored."""

    @property
    def classes(self) -> int:
        """One more than the highest class number; 0 if they have none."""

    def draw(self, count: int) -> tuple[Tensor, Tensor | None]:
        """`count` samples as they are stored, and their class numbers (None if they have none)."""


@dataclass(frozen=True)
class OnlineFakes:
    """Says that an integration samples the reference while it trains; there is nothing to draw from."""

    description: Mapping[str, Any]  # for the sidecars, as that of `Fakes`


class Generator(Protocol):
    """A network that makes samples, each from its own random stream and label alone."""

    @property
    def kind(self) -> Literal["images", "tokens"]:
        """What a reference set calls the samples; latents are images too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample as a reference set stores it."""

    @property
    def dtype(self) -> str:
        """numpy's name of the type in which a reference set stores samples: uint8 for pixels."""

    @property
    def classes(self) -> int:
        """How many classes the network knows; 0 if it is unconditional."""

    @property
    def batch(self) -> int:
        """Samples made together unless the user says otherwise: what upstream's script does."""

    @property
    def device(self) -> torch.device:
        """Where it computes; random streams are drawn there."""

    @property
    def reference(self) -> Mapping[str, str]:
        """`source` and `sha256` of the network's file."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Whatever else decides the samples, for the manifest: sampler, steps, guidance, precision.

        `DEPARTS` names the settings, if any, by which samples are not those of the network's own distribution.
        """

    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A sample for each stream, as a reference set stores it, and the class numbers.

        Without `labels` a network with classes draws them from the streams, as upstream's script does.
        """

    def images(self, samples: Tensor) -> Tensor:
        """Samples as uint8 images [N, C, H, W]."""


@dataclass(frozen=True)
class Run:
    """One finetuning run: what it was asked to do and where it writes."""

    upstream: str
    outdir: Path
    options: Mapping[str, Any] = field(default_factory=dict)  # every --ddo… option, by its parameter name
    provenance: Mapping[str, Any] = field(default_factory=dict)  # reference, fakes, versions


@dataclass(frozen=True)
class RefsetStep:
    """Make a reference set: `count` samples of `network`, written to the folder `out`.

    `settings` are options of `ddo refset make`, by their names.
    """

    upstream: str
    network: Path
    out: Path
    count: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundStep:
    """Finetune `reference` against `fakes`; snapshots go to the folder `out`, each with its sidecar."""

    upstream: str
    reference: Path
    fakes: Path | None  # None where the objective needs none, or the integration draws them online
    out: Path
    objective: str
    alpha: float
    beta: float
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationStep:
    """Judge `network`: write JSON with a number `score` (lower is better) to the file `out`."""

    upstream: str
    network: Path  # where an integration allows it, also a folder or zip of samples
    out: Path
    seeds: Sequence[int]
    settings: Mapping[str, Any] = field(default_factory=dict)
