"""Making a reference set: what it holds depends on no number of ranks, and a kill at any moment costs no sample."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from tqdm import tqdm

from ddo_plugin.base.environment import device_name
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.rank_group import Ranks
from ddo_plugin.hooks.streams import SampleGenerators
from ddo_plugin.hooks.types import RefsetStep
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets import partial as unfinished
from ddo_plugin.sampling.refsets.make import make, refset_command

KILLS = 20
CLASSES = 5


class Tiny:
    """Noise, brighter with the class; slow enough to be killed at work, and without threads, which forks dislike."""

    kind: Literal["images", "tokens"] = "images"
    shape, dtype, classes, batch = (3, 8, 8), "uint8", CLASSES, 16
    device = torch.device("cpu")
    reference = MappingProxyType({"source": "tiny.pkl", "sha256": "ab" * 32})
    settings: Any = MappingProxyType({"name": "none", "steps": 3})

    def __init__(self, pause_s: float = 0.0):
        self.pause_s = pause_s
        self.asked: list[int] = []

    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        time.sleep(self.pause_s)
        labels = streams.randint(CLASSES) if labels is None else labels
        self.asked.append(len(labels))
        made = streams.randn(*self.shape) * 20 + 40 * labels[:, None, None, None] + 60
        return made.clip(0, 255).to(torch.uint8), labels

    def images(self, samples: Tensor) -> Tensor:
        return samples


class Tokens(Tiny):
    """Tokens whose log-probabilities depend on the label."""

    kind: Literal["images", "tokens"] = "tokens"
    shape, dtype = (10,), "int16"

    def sample(self, streams: SampleGenerators, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        time.sleep(self.pause_s)
        self.asked.append(len(streams.indices))
        return (streams.rand(*self.shape) * 4096).to(torch.int16), labels


class ScoredTokens(Tokens):
    def logp(self, samples: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return -(samples + 1.0).log() - labels[:, None]


class OneOf(Ranks):
    """A rank of several that works alone: the others come later, or were killed."""

    def agree(self, function: Callable[[], Any]) -> Any:
        return function()

    def wait(self) -> None:
        pass


def run(out: Path, ranks: Ranks | None = None, generator: Tiny | None = None, **changes: Any) -> bool:
    settings = {"count": 203, "seed": 3, "labels": np.arange(203) % CLASSES, "batch": 16, **changes}
    return make(generator or Tiny(), out, ranks or Ranks(), **settings)


def checksums(out: Path) -> dict[str, str]:
    return {name: told["sha256"] for name, told in refset.open_refset(out).manifest["arrays"].items()}


def in_a_process(work: Callable[[], object]) -> int:
    """Fork, so that torch need not be imported anew; the child never returns."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            tqdm.set_lock(threading.RLock())  # its own lock is shared by forks, and would stay locked by a killed one
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "set"
    assert run(out)
    return out


# -- what it holds --------------------------------------------------------------------------------------------------


def test_the_set_says_what_made_it_and_holds_the_labels(whole: Path) -> None:
    made = refset.open_refset(whole)
    made.verify()
    assert len(made) == 203
    assert (made.labels == np.arange(203) % CLASSES).all()
    assert made.manifest["sampler"] == {"name": "none", "steps": 3, "batch": 16, "device": "cpu"}
    assert (made.manifest["seed"], made.manifest["reference"]) == (3, dict(Tiny.reference))
    brightness = [made.samples[made.labels == label].mean() for label in range(CLASSES)]
    assert all(low + 30 < high for low, high in itertools.pairwise(brightness))
    assert [path.name for path in whole.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_make_the_same_set(whole: Path, tmp_path: Path, world: int) -> None:
    """Each rank's part in turn; all but the last stop where they would wait for the others."""
    out = tmp_path / "set"
    for rank in range(world):
        with pytest.raises(RuntimeError, match="blocks of") if rank < world - 1 else _nothing():
            run(out, OneOf(0, world - rank))  # what is left, shared among those that are left
    assert checksums(out) == checksums(whole)


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_every_block_is_as_large_as_the_others(tmp_path: Path) -> None:
    """The last one too: a sample's last bits depend on how many others go through a network with it."""
    generator = Tiny()
    run(tmp_path / "set", generator=generator, count=20, labels=np.zeros(20, np.int64))
    assert generator.asked == [16, 16]


def test_a_longer_set_begins_with_the_shorter_one(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "set", count=50, labels=np.arange(50) % CLASSES)
    assert (refset.open_refset(tmp_path / "set").samples == refset.open_refset(whole).samples[:50]).all()


def test_seeds_make_different_sets(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "set", seed=4)
    assert checksums(tmp_path / "set")["images.npy"] != checksums(whole)["images.npy"]


# -- log-probabilities ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "set"
    assert run(out, generator=ScoredTokens())
    return out


def test_a_generator_that_scores_tokens_makes_a_set_with_log_probabilities(scored: Path) -> None:
    made = refset.open_refset(scored)
    made.verify()
    assert made.logp is not None and made.labels is not None
    expected = -np.log(made.samples + 1.0) - made.labels[:, None]
    np.testing.assert_allclose(made.logp, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["tokens of a generator without logp", "images"])
def test_other_sets_have_no_log_probabilities(tmp_path: Path, kind: str) -> None:
    class Images(Tiny):
        def logp(self, samples: Tensor, labels: Tensor | None) -> Tensor:
            raise AssertionError("images have no tokens")

    run(tmp_path / "set", generator=Images() if kind == "images" else Tokens())
    assert "logp.npy" not in checksums(tmp_path / "set")


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_make_the_same_log_probabilities(scored: Path, tmp_path: Path, world: int) -> None:
    for rank in range(world):
        with pytest.raises(RuntimeError, match="blocks of") if rank < world - 1 else _nothing():
            run(tmp_path / "set", OneOf(0, world - rank), ScoredTokens())
    assert checksums(tmp_path / "set") == checksums(scored)


def test_a_kill_while_the_manifest_is_written_leaves_nothing_in_the_finished_set(whole: Path, tmp_path: Path) -> None:
    out, replace = tmp_path / "set", Path.replace

    def die_before_the_manifest_has_its_name(self: Path, target: Path) -> Path:
        if target.name == refset.MANIFEST:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    def make_and_die() -> None:
        Path.replace = die_before_the_manifest_has_its_name  # type: ignore[assignment, method-assign]
        run(out)

    assert os.waitpid(in_a_process(make_and_die), 0)[1] == signal.SIGKILL
    assert [path.name for path in (tmp_path / ".set.unfinished" / "set").glob(".*.tmp")], "nothing was left"
    assert run(out)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_set_with_log_probabilities_goes_on_after_kills(scored: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(unfinished, "SYNC_S", 0.0)
    draw, out, kills = random.Random(1), tmp_path / "set", 0
    while not out.exists():
        child = in_a_process(lambda: run(out, generator=ScoredTokens(pause_s=0.02)))
        time.sleep(draw.uniform(0.02, 0.1))
        os.kill(child, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert kills >= 2
    assert checksums(out) == checksums(scored)


def test_a_block_is_recorded_only_when_both_arrays_are_on_the_disk(tmp_path: Path, monkeypatch) -> None:
    synced: list[str] = []
    to_disk = unfinished._to_disk

    def watch(file: Any) -> None:
        synced.append(Path(file.name).name.split("-")[0])
        to_disk(file)

    monkeypatch.setattr(unfinished, "SYNC_S", 0.0)
    monkeypatch.setattr(unfinished, "_to_disk", watch)
    run(tmp_path / "set", generator=ScoredTokens(), count=48, labels=np.zeros(48, np.int64))
    assert synced[:6] == ["tokens.npy", "logp.npy", "done"] * 2


@pytest.mark.parametrize("finished", [True, False])
def test_a_set_of_an_earlier_version_stays_without_log_probabilities(tmp_path: Path, finished: bool) -> None:
    out = tmp_path / "set"
    with _nothing() if finished else pytest.raises(RuntimeError, match="blocks of"):
        run(out, Ranks() if finished else OneOf(0, 2), Tokens())
    assert run(out, generator=ScoredTokens()) is not finished
    whole = tmp_path / "whole"
    run(whole, generator=Tokens())
    assert checksums(out) == checksums(whole)


def test_log_probabilities_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    class Broken(ScoredTokens):
        def logp(self, samples: Tensor, labels: Tensor | None) -> Tensor:
            values = super().logp(samples, labels)
            values[3, 2] = float("nan")
            return values

    with pytest.raises(UserError, match="sample 3 is not finite"):
        run(tmp_path / "set", generator=Broken())


def test_the_disk_must_have_room_for_the_log_probabilities_too(tmp_path: Path, monkeypatch) -> None:
    tokens = 203 * 10 * 2
    usage = type("Usage", (), {"free": tokens + 203 * 10})()
    monkeypatch.setattr(unfinished.shutil, "disk_usage", lambda _: usage)
    assert run(tmp_path / "tokens", generator=Tokens())
    generator = ScoredTokens()
    with pytest.raises(UserError, match="the disk has no room for this set"):
        run(tmp_path / "set", generator=generator)
    assert generator.asked == []


# -- kills ----------------------------------------------------------------------------------------------------------


def test_killed_20_times_at_random_moments_it_is_the_set_of_an_uninterrupted_run(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL; a set takes about two lives, and a finished one is begun anew, so that its last steps are hit too."""
    monkeypatch.setattr(unfinished, "SYNC_S", 0.02)
    draw, kills, finished = random.Random(0), 0, 0
    out, root = tmp_path / "0", tmp_path
    while kills < KILLS:
        child = in_a_process(lambda out=out: run(out, generator=Tiny(pause_s=0.01)))
        time.sleep(draw.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
        else:
            assert os.WEXITSTATUS(status) == 0
        if out.exists():
            assert checksums(out) == checksums(whole)
            finished += 1
            out = root / str(finished)
    run(out)
    assert checksums(out) == checksums(whole)
    run(out)  # sweeps what a kill in the very last step may have left
    assert finished >= 2
    assert {path.name for path in root.iterdir()} - {f".{n}.unfinished" for n in range(finished)} == {
        str(number) for number in range(finished + 1)
    }


def test_after_a_kill_only_what_is_missing_is_made(tmp_path: Path) -> None:
    out = tmp_path / "set"
    child = in_a_process(lambda: run(out, generator=Tiny(pause_s=0.3)))
    while sum(file.stat().st_size for file in tmp_path.glob(".set.unfinished/done-*")) < 3 * 8:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    generator = Tiny()
    assert run(out, generator=generator)
    assert len(generator.asked) <= 13 - 3


def test_a_record_that_was_cut_off_is_not_believed(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with pytest.raises(RuntimeError, match="blocks of"):
        run(out, OneOf(0, 2))
    record = next(tmp_path.glob(".set.unfinished/done-*"))
    os.truncate(record, record.stat().st_size - 3)
    generator = Tiny()
    run(out, generator=generator)
    assert len(generator.asked) == 13 - 6  # of the seven blocks that rank made, the last one is made again
    assert checksums(out) == checksums(whole)


def test_a_kill_while_the_work_is_laid_out_is_no_obstacle(whole: Path, tmp_path: Path) -> None:
    half = tmp_path / ".set.unfinished/set"
    half.mkdir(parents=True)
    (half / "images.npy").write_bytes(b"\x93NUMPY")
    assert run(tmp_path / "set")
    assert checksums(tmp_path / "set") == checksums(whole)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("left", [0, 100, None])
def test_an_array_that_a_power_cut_took_is_laid_out_again(whole: Path, tmp_path: Path, name: str, left) -> None:
    """As long as no sample is lost by it."""
    array = begun(tmp_path) / "set" / name
    if left is None:
        array.write_bytes(bytes(array.stat().st_size))  # a file system that kept the size and no data
    else:
        os.truncate(array, left)
    assert run(tmp_path / "set")
    assert checksums(tmp_path / "set") == checksums(whole)


def test_a_set_is_not_finished_on_another_model_of_gpu(tmp_path: Path, monkeypatch) -> None:
    """Its convolutions may end in other bits."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {device}")
    assert [device_name(torch.device(one)) for one in ("cpu", "cuda")] == ["cpu", "NVIDIA cuda"]
    monkeypatch.setattr("ddo_plugin.sampling.refsets.make.device_name", lambda device: "NVIDIA A100")
    with pytest.raises(RuntimeError, match="blocks of"):
        run(tmp_path / "set", OneOf(0, 2))
    monkeypatch.setattr("ddo_plugin.sampling.refsets.make.device_name", lambda device: "NVIDIA H100")
    with pytest.raises(UserError, match=r"its sampler\.device is NVIDIA A100, not NVIDIA H100; repeat its settings"):
        run(tmp_path / "set")


def test_a_run_without_a_finished_block_does_not_bind_the_next_one(whole: Path, tmp_path: Path) -> None:
    """Such as one whose settings were wrong."""
    begun(tmp_path, seed=4, batch=8, count=99, labels=np.zeros(99, np.int64))
    assert run(tmp_path / "set")
    assert checksums(tmp_path / "set") == checksums(whole)


def test_the_arrays_are_on_the_disk_before_the_draft(tmp_path: Path, monkeypatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell which file a descriptor is")
    monkeypatch.setattr(os, "fsync", watch)
    begun(tmp_path)
    draft = next(number for number, name in enumerate(synced) if "draft.json" in name)
    assert set(synced[:draft]) == {"images.npy", "labels.npy", "set", ".set.unfinished"}


def begun(root: Path, **changes: Any) -> Path:
    """The work of a run that was killed before its first block."""

    class KilledError(Exception):
        pass

    class Killed(Tiny):
        def sample(self, *_: Any) -> Any:
            raise KilledError

    with pytest.raises(KilledError):
        run(root / "set", generator=Killed(), **changes)
    return root / ".set.unfinished"


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_set_that_is_there_is_not_made_again(whole: Path) -> None:
    generator = Tiny()
    assert not run(whole, generator=generator)
    assert generator.asked == []


def test_the_same_network_may_be_named_otherwise(whole: Path) -> None:
    generator = Tiny()
    generator.reference = MappingProxyType({**Tiny.reference, "source": "elsewhere/tiny.pkl"})
    assert not run(whole, generator=generator)
    generator.reference = MappingProxyType({**Tiny.reference, "sha256": "cd" * 32})
    with pytest.raises(UserError, match=r"its reference\.sha256 is abab"):
        run(whole, generator=generator)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 4}, "its seed is 3, not 4"),
        ({"batch": 8}, "its sampler.batch is 16, not 8"),
        ({"count": 99, "labels": np.arange(99) % CLASSES}, "its count is 203, not 99"),
        ({"labels": np.zeros(203, np.int64)}, "its labels are different"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_do_not_go_on_from_there(whole: Path, tmp_path: Path, finished, changes, named) -> None:
    out = whole if finished else tmp_path / "set"
    if not finished:
        with pytest.raises(RuntimeError, match="blocks of"):
            run(out, OneOf(0, 2))
    with pytest.raises(UserError, match=f"holds another set: {named}; repeat its settings"):
        run(out, **changes)


def test_something_else_in_its_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not a reference set"):
        run(tmp_path / "set")
    assert (tmp_path / "set/thesis.tex").read_text() == "mine"


def test_what_appears_in_its_place_during_the_work_is_left_alone(whole: Path, tmp_path: Path, monkeypatch) -> None:
    out, seal = tmp_path / "set", refset.seal
    monkeypatch.setattr(refset, "seal", lambda *arguments: (seal(*arguments), out.write_text("mine")))
    with pytest.raises(UserError, match="set already exists and is not overwritten"):
        run(out)
    assert out.read_text() == "mine"
    monkeypatch.undo()
    out.unlink()
    generator = Tiny()
    assert run(out, generator=generator)  # the work is kept
    assert generator.asked == []
    assert checksums(out) == checksums(whole)


def test_a_set_that_another_process_has_finished_meanwhile_is_not_begun_again(whole: Path) -> None:
    work = unfinished.Unfinished(whole, refset.open_refset(whole).manifest, None, 16)
    with pytest.raises(UserError, match="already exists"):
        work.begin()
    work.close()


def test_two_processes_do_not_make_one_set(tmp_path: Path) -> None:
    out = tmp_path / "set"
    child = in_a_process(lambda: run(out, generator=Tiny(pause_s=0.2)))
    while not (tmp_path / ".set.unfinished/draft.json").exists():
        time.sleep(0.02)
    with pytest.raises(UserError, match="another process is creating this set"):
        run(out)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert run(out)


def test_a_set_that_the_disk_has_no_room_for_is_refused_before_any_sample(tmp_path: Path) -> None:
    shape, names = (10**11, 3, 64, 64), {"kind": "images", "reference": {}, "sampler": {}, "seed": 0}
    work = unfinished.Unfinished(tmp_path / "set", refset.draft(shape, "uint8", False, **names), None, 64)
    with pytest.raises(UserError, match="the disk has no room for this set"):
        work.begin()
    work.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_is_found_before_any_sample(tmp_path: Path, monkeypatch, code: int) -> None:
    """The disk itself has room."""
    monkeypatch.setattr(os, "posix_fallocate", _failing(code))
    generator = Tiny()
    with pytest.raises(UserError, match=rf"the disk \({os.strerror(code)}\) has no room for this set; free space"):
        run(tmp_path / "set", generator=generator)
    assert generator.asked == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_reserve_room_is_good_enough(tmp_path: Path, monkeypatch, code: int) -> None:
    monkeypatch.setattr(os, "posix_fallocate", _failing(code))
    assert run(tmp_path / "set")


def _failing(code: int) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_step_of_self_play_is_the_command_that_a_person_would_type() -> None:
    step = RefsetStep("edm", Path("a.pkl"), Path("out"), 10, 3, {"steps": 4, "labels": "0,1"})
    told = refset_command(step).argv[1:]
    flags = ["--upstream=edm", "--network=a.pkl", "--out=out", "--count=10", "--seed=3", "--steps=4", "--labels=0,1"]
    assert list(told) == ["-m", "ddo_plugin", "refset", "make", *flags]


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_the_files_behind_a_link_in_place_of_the_unfinished_set_stay(tmp_path: Path) -> None:
    """Whoever packed a folder can have put such a link into it."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("…")
    (tmp_path / ".set.unfinished").symlink_to(precious)
    with pytest.raises(UserError, match="is a link; remove it"):
        make(Tiny(), tmp_path / "set", Ranks(), count=4, seed=0, labels=None, batch=2)
    assert [file.name for file in precious.iterdir()] == ["thesis.tex"]
