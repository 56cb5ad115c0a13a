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
    """A feature extractor that also classifies, as the Inception Score needs."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return features [N, D]."""

    def with_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features [N, D] and class logits [N, K], before any softmax."""


@runtime_checkable
class SpatialExtractor(Protocol):
    """A feature extractor with features that keep positions, as sFID needs."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return features [N, D]."""

    def with_spatial(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return features [N, D], class logits [N, K] or None, and spatial features [N, S], from one forward pass."""


@dataclass(frozen=True)
class Family:
    """Checkouts whose imported modules are recognised in the same way."""

    anchor: str  # a module that their code imports early
    beside: tuple[str, ...]  # files and folders that lie beside that module in a checkout, and nowhere else


@dataclass(frozen=True)
class Fix:
    """A compat fix: something that upstream code needs and this environment lacks."""

    name: str
    breaks: str  # what goes wrong without the fix
    does: str  # what the fix changes
    needed: Callable[[], bool]  # judged by behaviour wherever that is cheap
    apply: Callable[[], None]
    for_imports: bool = False  # upstream cannot be imported without it
    to_train: bool = False  # no training run starts without it


@dataclass(frozen=True)
class Upstream:
    """A repository or script whose networks an integration finetunes, and what the core must know about it."""

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
    states: tuple[str, ...] = ()  # names of training states in a round's folder, as patterns; deleted after it
    family: Family | None = None  # how compat recognises the checkout's modules; fixes change behaviour for these alone
    compat: tuple[str, ...] = ()  # the built-in compat fixes that its code needs, by their names in `ddo doctor`
    fixes: tuple[Fix, ...] = ()  # compat fixes of its own, applied after the built-in ones
    # Class that its network pickles hold -> the module of the checkout that defines it. No other class is loaded.
    network_classes: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Reference:
    """The network from the start of the round, frozen: in `eval()`, without gradients, never in a checkpoint."""

    network: Any  # an nn.Module; None if upstream's loop builds the network and the integration fills it from `info`
    source: str  # path or URL that it was loaded from
    sha256: str  # of the file
    info: Any = None  # more facts about the network, for its integration


class Fakes(Protocol):
    """Samples of the reference, drawn with torch's global generator, so that a resumed run repeats the same draws."""

    @property
    def description(self) -> Mapping[str, Any]:
        """Where the samples come from, for the sidecars; `reference_sha256` names the network, if it is known."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample as it is stored."""

    @property
    def classes(self) -> int:
        """One more than the highest class number; 0 without classes."""

    def draw(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Return `count` samples as they are stored, and their class numbers (None without classes)."""


@dataclass(frozen=True)
class OnlineFakes:
    """The answer of an integration that samples the reference during training, so there is no stored set."""

    description: Mapping[str, Any]  # for the sidecars, as in `Fakes`


class Generator(Protocol):
    """A network that makes samples, each from its own random stream and label only."""

    @property
    def kind(self) -> Literal["images", "tokens"]:
        """The kind of the samples in a reference set; latents are images too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample as a reference set stores it."""

    @property
    def dtype(self) -> str:
        """The numpy name of the type in which a reference set stores samples, such as uint8 for pixels."""

    @property
    def classes(self) -> int:
        """The number of classes; 0 if the network is unconditional."""

    @property
    def batch(self) -> int:
        """The default batch size: that of upstream's script."""

    @property
    def device(self) -> torch.device:
        """The device of the network, on which random streams are drawn too."""

    @property
    def reference(self) -> Mapping[str, str]:
        """The `source` and `sha256` of the network's file."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything else that decides the samples, for the manifest: sampler, steps, guidance, precision.

        The key `DEPARTS` lists the settings, if any, that change the distribution of the samples, such as guidance.
        """

    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return a sample for each stream, as a reference set stores it, and the class numbers.

        Without `labels`, a network with classes draws them from the streams, as upstream's script does.
        """

    def images(self, samples: Tensor) -> Tensor:
        """Return samples as uint8 images [N, C, H, W]."""


@runtime_checkable
class ScoringGenerator(Protocol):
    """A generator that also tells how likely its tokens are; a reference set of tokens then stores this."""

    def logp(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        """Return [N, L] in fp32: the log-probability of each token under the network without guidance.

        `samples` and `labels` are what `sample` returned. The result is that of one forward over these tokens.
        """


@dataclass(frozen=True)
class Run:
    """A finetuning run: its options, and where it writes."""

    upstream: str
    outdir: Path
    options: Mapping[str, Any] = field(default_factory=dict)  # every --ddo… option, by its parameter name
    provenance: Mapping[str, Any] = field(default_factory=dict)  # reference, fakes, versions


@dataclass(frozen=True)
class RefsetStep:
    """Make a reference set: `count` samples of `network`, written to the folder `out`.

    `settings` are options of `ddo refset make`, by name.
    """

    upstream: str
    network: Path
    out: Path
    count: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundStep:
    """Finetune `reference` against `fakes`; write snapshots to the folder `out`, each with its sidecar."""

    upstream: str
    reference: Path
    fakes: Path | None  # None if the objective needs none, or the integration samples the reference itself
    out: Path
    objective: str
    alpha: float
    beta: float
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationStep:
    """Evaluate `network`: write JSON with a number `score` (lower is better) to the file `out`."""

    upstream: str
    network: Path  # or a folder or zip of samples, if the integration allows it
    out: Path
    seeds: Sequence[int]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkCount:
    """What was counted in a network, so that `ddo plan` can tell what its steps cost. Figures are for one sample."""

    parameters: int
    forward: float  # floating-point operations of a forward pass
    kept: float  # bytes that a forward pass of training keeps for the backward pass
    kept_once: float  # the bytes that do not depend on the number of samples
    sample_bytes: int  # of a sample as a reference set stores it
    half: bool = False  # whether upstream's scripts sample it in half precision, as its file says
    others: Mapping[str, float] = field(default_factory=dict)  # operations of what else a sample needs, by name


@dataclass(frozen=True)
class Rate:
    """How fast a GPU computes something, for `ddo plan`."""

    what: str
    precision: Literal["fp32", "tf32", "half"]
    share: float  # of the GPU's peak in this precision
    source: str = "assumed"  # how the share is known, such as "measured with EDM2-S on an H200"

    def of(self, operations: float) -> Arithmetic:
        """Return this number of floating-point operations at this rate."""
        return Arithmetic(operations, self)


@dataclass(frozen=True)
class Arithmetic:
    """Floating-point operations, and how fast a GPU is at them."""

    operations: float
    rate: Rate


@dataclass(frozen=True)
class Memory:
    """The GPU memory of a training, in bytes."""

    fixed: float  # weights, gradients, optimizer, reference and whatever else does not depend on the batch
    per_image: float  # for each real image of a pass, with its fakes
    images: int  # real images that a GPU takes through the networks in one pass
    share: int  # real images of a whole optimizer step on one GPU
    option: str  # how a pass is made smaller, with {images} and {passes}: "training.batch-gpu = {images}"


@dataclass(frozen=True)
class Effort:
    """What a step of self-play computes and stores."""

    arithmetic: Sequence[Arithmetic]
    stored: float = 0  # bytes of a reference set
    snapshots: int = 0  # how often a training writes a snapshot
    networks: int = 1  # files of a snapshot, each of which is evaluated
    network_bytes: float = 0  # of one of them
    states: int = 0  # training states that a training leaves
    state_bytes: float = 0  # of one of them
    memory: Memory | None = None
    left_out: Sequence[str] = ()  # what costs time too, but is not counted
