"""Writing the images of `ddo sample`: PNGs, an .npz for evaluators, a grid."""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ddo_plugin.base.files import atomic_write, write_json
from ddo_plugin.base.image_files import png
from ddo_plugin.base.progress import progress
from ddo_plugin.base.rank_group import Ranks
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.hooks.types import Generator
from ddo_plugin.sampling.refsets.image_archive import add_labels

RECORD = "samples.json"  # in the folder of PNGs; upstream's readers ignore it
GRID = 100  # maximum number of images in a grid
QUICK = 1  # zlib's level; images hardly compress more at higher levels


@dataclass(frozen=True)
class Outputs:
    """Where images are written; None disables an output."""

    folder: Path | None = None
    subfolders: bool = False  # a subfolder for every 1000 seeds
    npz: Path | None = None
    grid: Path | None = None

    def name(self, seed: int) -> str:
        """Return the name of a seed's PNG in the folder."""
        return f"{seed // 1000 * 1000:06d}/{seed:06d}.png" if self.subfolders else f"{seed:06d}.png"

    def others(self, seeds: Sequence[int]) -> int:
        """Return the number of PNGs in the folder that belong to other seeds."""
        if self.folder is None:
            return 0
        names = {file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*.png")}
        return len(names - {self.name(seed) for seed in seeds})

    def written(self) -> list[str]:
        """Return the paths of all outputs."""
        return [str(path) for path in (self.folder, self.npz, self.grid) if path is not None]

    def record(self, settings: Mapping[str, Any]) -> None:
        """Write the settings beside the outputs. A folder's record lists every run that wrote into it, newest last."""
        for path in (self.npz, self.grid):
            if path is not None:
                write_json(record_beside(path), settings)
        if self.folder is not None:
            earlier: list[Any] = []
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no record yet, or not a readable one
                earlier = list(json.loads((self.folder / RECORD).read_bytes())["runs"])
            write_json(self.folder / RECORD, {"runs": [*(run for run in earlier if run != settings), settings]})


def record_beside(path: Path) -> Path:
    """Return the path of the record of an .npz or a grid."""
    return path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class Batch:
    """The images of a rank: positions in the list of seeds, uint8 images [N, C, H, W] and class numbers."""

    rows: np.ndarray
    images: np.ndarray | None
    labels: np.ndarray | None


def write_images(
    generator: Generator, ranks: Ranks, outputs: Outputs, *, seeds: Sequence[int], labels: np.ndarray | None, batch: int
) -> None:
    """Write an image for each seed. Without `labels` each seed draws its class, as in upstream's scripts."""
    kept = outputs.npz is not None or outputs.grid is not None
    with contextlib.ExitStack() as stack:
        collected = stack.enter_context(_collect(outputs, seeds)) if ranks.first else None
        bar = stack.enter_context(progress("images", len(seeds), unit=" images", shown=ranks.first))
        writer = stack.enter_context(ThreadPoolExecutor(1))  # compresses a batch while the next one is sampled

        def write(own: Batch, parts: Sequence[Batch]) -> None:
            if outputs.folder is not None and own.images is not None:
                _write_pngs(outputs, [seeds[row] for row in own.rows], own.images)
            for part in parts:
                if collected is not None and len(part.rows):
                    collected.add(part)
                bar.update(len(part.rows))

        writing = writer.submit(lambda: None)
        for rows in _batches(len(seeds), batch, ranks):
            sampled = _sample(generator, seeds, labels, rows)
            gathered = ranks.gather(sampled if kept else Batch(rows, None, sampled.labels))
            writing.result()  # raises what the writer raised; at most one batch waits in memory
            writing = writer.submit(write, sampled, gathered or ())
        writing.result()


def _batches(count: int, batch: int, ranks: Ranks) -> list[np.ndarray]:
    """Divide the images into batches like upstream, because a convolution's last bits depend on the batch size.

    Every rank gets the same number of batches; some can be empty.
    """
    rounds = max(-(-count // (batch * ranks.world)), 1)
    return np.array_split(np.arange(count), rounds * ranks.world)[ranks.rank :: ranks.world]


def _sample(generator: Generator, seeds: Sequence[int], labels: np.ndarray | None, rows: np.ndarray) -> Batch:
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
        with atomic_write(path, durable=False) as file:  # to sync each image is slow
            file.write(png(image))


class _Collected:
    """The outputs that the first rank writes for all ranks. Batches arrive in the order of the seeds."""

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
    with contextlib.ExitStack() as stack:  # opened now, so that an unwritable path fails before sampling
        npz = None
        if outputs.npz is not None:
            npz = NpzWriter(stack.enter_context(atomic_write(outputs.npz)), len(seeds))
            stack.callback(npz.close)
        picture = None if outputs.grid is None else stack.enter_context(atomic_write(outputs.grid))
        collected = _Collected(outputs, npz, picture)
        yield collected
        collected.finish(seeds)


class NpzWriter:
    """Writes the rows of `arr_0` one by one into a compressed .npz. The first rows determine their shape."""

    def __init__(self, file: IO[bytes], count: int):
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=QUICK)
        self._count = count
        self._member: IO[bytes] | None = None

    def add(self, rows: np.ndarray) -> None:
        if self._member is None:
            self._member = self._archive.open("arr_0.npy", "w", force_zip64=True)
            header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (self._count, *rows.shape[1:])}
            np.lib.format.write_array_header_1_0(self._member, header)
        self._member.write(np.ascontiguousarray(rows).tobytes())

    def finish(self, labels: np.ndarray | None) -> None:
        """Complete `arr_0` and add the class numbers as `arr_1`."""
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
            self._archive.fp = None  # otherwise its destructor prints another error after a full disk


def grid(images: np.ndarray) -> np.ndarray:
    """Arrange uint8 [N, C, H, W] in a nearly square image [C, rows·H, columns·W], filled up with black."""
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
