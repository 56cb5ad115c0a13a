"""Images of a network, seed by seed as upstream's scripts make them: PNGs, an npz for evaluators, a grid."""

from __future__ import annotations

import contextlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ddo_plugin.base.files import atomic_write, write_json
from ddo_plugin.base.progress import progress
from ddo_plugin.base.rank_group import Ranks
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.hooks.types import Generator
from ddo_plugin.sampling.refsets.image_archive import add_labels, png

RECORD = "samples.json"  # in a folder of PNGs; upstream's readers pass over it
GRID = 100  # images in a grid at most
QUICK = 1  # zlib's level: images hardly compress, and higher ones cost time


@dataclass(frozen=True)
class Outputs:
    """Where images go; what is None is not written."""

    folder: Path | None = None
    subfolders: bool = False  # one for every 1000 seeds
    npz: Path | None = None
    grid: Path | None = None

    def name(self, seed: int) -> str:
        """A PNG's name in the folder."""
        return f"{seed // 1000 * 1000:06d}/{seed:06d}.png" if self.subfolders else f"{seed:06d}.png"

    def others(self, seeds: Sequence[int]) -> int:
        """How many PNGs of other runs lie in the folder."""
        if self.folder is None:
            return 0
        found = {file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*.png")}
        return len(found - {self.name(seed) for seed in seeds})

    def written(self) -> list[str]:
        """The paths of all that is written."""
        return [str(path) for path in (self.folder, self.npz, self.grid) if path is not None]

    def record(self, told: Mapping[str, Any]) -> None:
        """Say beside the images what made them. In the folder stands each run that wrote into it, the last one last."""
        for path in (self.npz, self.grid):
            if path is not None:
                write_json(record_beside(path), told)
        if self.folder is not None:
            earlier: list[Any] = []
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or nothing that can be kept
                earlier = list(json.loads((self.folder / RECORD).read_bytes())["runs"])
            write_json(self.folder / RECORD, {"runs": [*(one for one in earlier if one != told), told]})


def record_beside(path: Path) -> Path:
    """What made an npz or a grid."""
    return path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class Batch:
    """What a rank made: rows of the list of seeds, uint8 images [N, C, H, W] if they are wanted, class numbers."""

    rows: np.ndarray
    images: np.ndarray | None
    labels: np.ndarray | None


def write_images(
    generator: Generator, ranks: Ranks, outputs: Outputs, *, seeds: Sequence[int], labels: np.ndarray | None, batch: int
) -> None:
    """An image for each seed. Without `labels` each seed draws its class, as upstream's scripts do."""
    kept = outputs.npz is not None or outputs.grid is not None
    with contextlib.ExitStack() as stack:
        collected = stack.enter_context(_collect(outputs, seeds)) if ranks.first else None
        bar = stack.enter_context(progress("images", len(seeds), unit=" images", shown=ranks.first))
        for rows in _batches(len(seeds), batch, ranks):
            made = _make(generator, seeds, labels, rows)
            if outputs.folder is not None and made.images is not None:
                _write_pngs(outputs, [seeds[row] for row in rows], made.images)
            gathered = ranks.gather(made if kept else Batch(rows, None, made.labels))
            for part in gathered or ():
                if collected is not None and len(part.rows):
                    collected.add(part)
                bar.update(len(part.rows))


def _batches(count: int, batch: int, ranks: Ranks) -> list[np.ndarray]:
    """Upstream's own division, on which the last bits of a convolution depend: as many for every rank, maybe empty."""
    rounds = max(-(-count // (batch * ranks.world)), 1)
    return np.array_split(np.arange(count), rounds * ranks.world)[ranks.rank :: ranks.world]


def _make(generator: Generator, seeds: Sequence[int], labels: np.ndarray | None, rows: np.ndarray) -> Batch:
    if not len(rows):
        return Batch(rows, None, None)
    streams = SampleGenerators(0, [seeds[row] for row in rows], generator.device)
    samples, numbers = generator.sample(streams, None if labels is None else torch.from_numpy(labels[rows]))
    images = generator.images(samples).cpu().numpy()
    return Batch(rows, images, None if numbers is None else numbers.cpu().numpy())


def _write_pngs(outputs: Outputs, seeds: Sequence[int], images: np.ndarray) -> None:
    assert outputs.folder is not None
    for seed, image in zip(seeds, images, strict=True):
        path = outputs.folder / outputs.name(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # whole after a kill; not worth a wait for the disk each
        try:
            temporary.write_bytes(png(image))
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class _Collected:
    """What the first rank writes of all ranks' batches, which come in the order of the seeds."""

    def __init__(self, outputs: Outputs, npz: NpzWriter | None, grid: IO[bytes] | None):
        self.outputs, self.npz, self.grid = outputs, npz, grid
        self.first: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def add(self, part: Batch) -> None:
        if part.labels is not None:
            self.labels.append(part.labels)
        if part.images is None:
            return
        if self.npz is not None:
            self.npz.add(part.images.transpose(0, 2, 3, 1))
        if self.grid is not None:
            self.first.extend(part.images[: GRID - len(self.first)])

    def finish(self, seeds: Sequence[int]) -> None:
        labels = np.concatenate(self.labels) if self.labels else None
        if self.npz is not None:
            self.npz.finish(labels)
        if self.grid is not None:
            self.grid.write(png(grid(np.stack(self.first))))
        if self.outputs.folder is not None and labels is not None:
            names = [self.outputs.name(seed) for seed in seeds]
            add_labels(self.outputs.folder, dict(zip(names, labels.tolist(), strict=True)))


@contextlib.contextmanager
def _collect(outputs: Outputs, seeds: Sequence[int]) -> Iterator[_Collected]:
    with contextlib.ExitStack() as stack:  # files are opened now: what cannot be written fails before the work
        npz = None
        if outputs.npz is not None:
            npz = NpzWriter(stack.enter_context(atomic_write(outputs.npz)), len(seeds))
            stack.callback(npz.close)
        picture = None if outputs.grid is None else stack.enter_context(atomic_write(outputs.grid))
        collected = _Collected(outputs, npz, picture)
        yield collected
        collected.finish(seeds)


class NpzWriter:
    """An npz whose `arr_0` is written row by row, compressed; the number of rows is known, their shape not yet."""

    def __init__(self, file: IO[bytes], count: int):
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=QUICK)
        self._count = count
        self._member: IO[bytes] | None = None

    def add(self, rows: np.ndarray) -> None:
        if self._member is None:
            self._member = self._archive.open("arr_0.npy", "w", force_zip64=True)
            told = {"descr": rows.dtype.str, "fortran_order": False, "shape": (self._count, *rows.shape[1:])}
            np.lib.format.write_array_header_1_0(self._member, told)
        self._member.write(np.ascontiguousarray(rows).tobytes())

    def finish(self, labels: np.ndarray | None) -> None:
        """Close the rows, and add the class numbers as `arr_1`."""
        if self._member is not None:
            self._member.close()
        if labels is not None:
            with self._archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, labels)
        self.close()

    def close(self) -> None:
        try:
            if self._member is not None:
                self._member.close()
            self._archive.close()
        finally:
            self._archive.fp = None  # after a full disk its destructor would complain, too


def grid(images: np.ndarray) -> np.ndarray:
    """uint8 [N, C, H, W] as one image [C, rows·H, columns·W], nearly square, filled up with black."""
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, channels, height, width), images.dtype)
    cells[:count] = images
    return (
        cells.reshape(rows, columns, channels, height, width)
        .transpose(2, 0, 3, 1, 4)
        .reshape(channels, rows * height, columns * width)
    )
