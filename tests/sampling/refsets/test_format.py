"""Reference sets on disk: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.sampling.refsets.format import MANIFEST, Refset, RefsetFakes, SampleKind, open_refset

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 4), dtype=np.uint8)
LATENTS = np.random.default_rng(1).standard_normal((12, 4, 2, 2)).astype(np.float32)
TOKENS = np.random.default_rng(2).integers(0, 4096, (12, 10), dtype=np.int16)
LOGP = -np.random.default_rng(3).random((12, 10), dtype=np.float32)
LABELS = np.arange(12, dtype=np.int64) % 5
REFERENCE = {"source": "network.pkl", "sha256": "ab" * 32}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(
    path: Path, samples: np.ndarray = IMAGES, labels: np.ndarray | None = LABELS, kind: SampleKind = "images"
) -> Refset:
    return refset.write(path, samples, labels, kind=kind, reference=REFERENCE, sampler={"steps": 18}, seed=7)


def write_scored(path: Path) -> Refset:
    made_by: Any = {"kind": "tokens", "reference": REFERENCE, "sampler": {}, "seed": 7}
    return refset.write(path, TOKENS, LABELS, logp=LOGP, **made_by)


def change_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize("labels", [LABELS, None])
@pytest.mark.parametrize(("samples", "kind"), [(IMAGES, "images"), (LATENTS, "images"), (TOKENS, "tokens")])
def test_what_is_written_comes_back(
    tmp_path: Path, samples: np.ndarray, kind: SampleKind, labels: np.ndarray | None
) -> None:
    write(tmp_path / "set", samples, labels, kind)
    opened = open_refset(tmp_path / "set")
    opened.verify()
    assert len(opened) == 12
    assert opened.samples.dtype == samples.dtype
    np.testing.assert_array_equal(opened.samples, samples)
    assert (opened.labels is None) == (labels is None)
    if labels is not None:
        np.testing.assert_array_equal(opened.labels, labels)
    files = {f"{kind}.npy", MANIFEST} | ({"labels.npy"} if labels is not None else set())
    assert set(names(tmp_path / "set")) == files


def test_tokens_come_back_with_their_log_probabilities(tmp_path: Path) -> None:
    opened = write_scored(tmp_path / "set")
    opened.verify()
    assert names(tmp_path / "set") == ["labels.npy", "logp.npy", MANIFEST, "tokens.npy"]
    assert opened.manifest["arrays"]["logp.npy"]["shape"] == [12, 10]
    assert isinstance(opened.logp, np.memmap)
    np.testing.assert_array_equal(opened.logp, LOGP)
    np.testing.assert_array_equal(opened.samples, TOKENS)


def test_a_set_without_log_probabilities_has_none(tmp_path: Path) -> None:
    assert write(tmp_path / "set", TOKENS, LABELS, "tokens").logp is None


@pytest.mark.parametrize("logp", [LOGP[:11], LOGP[:, :9], LOGP.astype(np.float64)])
def test_log_probabilities_that_do_not_match_the_tokens_are_not_written(tmp_path: Path, logp: np.ndarray) -> None:
    with pytest.raises(ValueError, match="log-probabilities"):
        refset.write(tmp_path / "set", TOKENS, LABELS, logp=logp, kind="tokens", reference={}, sampler={}, seed=0)
    assert names(tmp_path) == []


def test_the_manifest_says_what_made_the_set(tmp_path: Path) -> None:
    manifest = write(tmp_path / "set").manifest
    assert manifest["reference"] == REFERENCE
    assert (manifest["count"], manifest["kind"], manifest["seed"]) == (12, "images", 7)
    assert manifest["sampler"] == {"steps": 18}
    assert manifest["arrays"]["images.npy"]["shape"] == [12, 3, 4, 4]


def test_samples_are_mapped_and_not_read(tmp_path: Path) -> None:
    opened = write(tmp_path / "set")
    assert isinstance(opened.samples, np.memmap)
    assert not opened.samples.flags.writeable


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = np.save

    def save_and_break(file: Path, array: np.ndarray) -> None:
        saved(file, array)
        if file.name == "labels.npy":
            raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", save_and_break)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set")
    assert names(tmp_path) == []


def test_a_killed_write_leaves_no_set(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from ddo_plugin.sampling.refsets import format as refset
refset.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
refset.write(Path(sys.argv[1]), np.zeros((2, 1, 1, 1)), None, kind="images", reference={}, sampler={}, seed=0)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "set")]).returncode == -9
    with pytest.raises(UserError, match="not a reference set"):
        open_refset(tmp_path / "set")


def test_labels_that_do_not_match_the_samples_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="11 labels for 12 samples"):
        write(tmp_path / "set", labels=LABELS[:-1])
    with pytest.raises(ValueError, match="needs at least 1 sample"):
        write(tmp_path / "set", IMAGES[:0], None)
    assert names(tmp_path) == []


# -- damage ---------------------------------------------------------------------------------------------------------


def test_a_truncated_array_is_refused_at_opening(tmp_path: Path) -> None:
    write(tmp_path / "set")
    file = tmp_path / "set" / "images.npy"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UserError, match=r"images\.npy is missing or truncated .*; create the set again"):
        open_refset(tmp_path / "set")


@pytest.mark.parametrize("size", [0, 5, 60])
def test_an_array_without_a_whole_header_is_refused(tmp_path: Path, size: int) -> None:
    write(tmp_path / "set")
    os.truncate(tmp_path / "set" / "labels.npy", size)
    with pytest.raises(UserError, match="missing or truncated"):
        open_refset(tmp_path / "set")


def test_a_missing_array_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set")
    (tmp_path / "set" / "labels.npy").unlink()
    with pytest.raises(UserError, match=r"labels\.npy is missing"):
        open_refset(tmp_path / "set")


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
@pytest.mark.parametrize("name", ["images.npy", MANIFEST])
def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path, name: str) -> None:
    write(tmp_path / "set")
    (tmp_path / "set" / name).unlink()
    os.mkfifo(tmp_path / "set" / name)
    with pytest.raises(UserError, match="regular file"):
        open_refset(tmp_path / "set")


def test_samples_without_a_number_are_refused(tmp_path: Path) -> None:
    """The header of an array can claim any number of them."""
    with pytest.raises(UserError, match="holds samples"):
        write(tmp_path / "set", np.zeros((10**9, 3, 0, 4), np.uint8), None)


@pytest.mark.parametrize("other", [IMAGES[:11], IMAGES.astype(np.float32), IMAGES.reshape(12, 48)])
def test_an_array_that_is_not_the_manifests_is_refused(tmp_path: Path, other: np.ndarray) -> None:
    write(tmp_path / "set")
    np.save(tmp_path / "set" / "images.npy", other)
    with pytest.raises(UserError, match=r"but the manifest says \[12, 3, 4, 4\] uint8"):
        open_refset(tmp_path / "set")


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    write(tmp_path / "set")
    np.save(tmp_path / "set" / "images.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="missing or truncated"):
        open_refset(tmp_path / "set")


def test_damaged_contents_are_found_by_verify(tmp_path: Path) -> None:
    opened = write(tmp_path / "set")
    file = tmp_path / "set" / "images.npy"
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)
    assert len(open_refset(tmp_path / "set")) == 12  # opening does not read the samples
    with pytest.raises(UserError, match=r"images\.npy is damaged"):
        opened.verify()


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a reference set: it has no manifest\.json"):
        open_refset(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").touch()
    with pytest.raises(UserError, match="not a reference set"):
        open_refset(tmp_path / "set")


@pytest.mark.parametrize("contents", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, contents: bytes) -> None:
    write(tmp_path / "set")
    (tmp_path / "set" / MANIFEST).write_bytes(contents)
    with pytest.raises(UserError, match="create the set again"):
        open_refset(tmp_path / "set")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("arrays", [{}, None, {"images.npy": {}}, {"images.npy": "a"}]),
        ("kind", ["sounds", 3, None]),
        ("count", [11, "12", 12.0, None, -1]),
        ("reference", [None, "network.pkl", []]),
        ("sampler", [None, "heun"]),
        ("seed", ["7", 0.5, True, -1]),
    ],
)
def test_a_manifest_that_lacks_something_is_refused(tmp_path: Path, field: str, values: list[Any]) -> None:
    write(tmp_path / "set")
    for value in values:
        change_manifest(tmp_path / "set", **{field: value})
        with pytest.raises(UserError, match=rf"{field}'? is .*create (the set|it) again"):
            open_refset(tmp_path / "set")


def test_a_manifest_without_a_seed_is_refused(tmp_path: Path) -> None:
    manifest = dict(write(tmp_path / "set").manifest)
    del manifest["seed"]
    (tmp_path / "set" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: the field 'seed' is missing or has a wrong value; create"):
        open_refset(tmp_path / "set")


@pytest.mark.parametrize("name", ["../outside.npy", "more.npy"])
def test_a_manifest_that_names_another_array_is_refused(tmp_path: Path, name: str) -> None:
    arrays = write(tmp_path / "set").manifest["arrays"]
    np.save(tmp_path / "set" / name, LABELS)
    change_manifest(tmp_path / "set", arrays={**arrays, name: arrays["labels.npy"]})
    with pytest.raises(UserError, match="the field 'arrays' is missing or has a wrong value"):
        open_refset(tmp_path / "set")


@pytest.mark.parametrize("labels", [LABELS[:11], LABELS.astype(float), LABELS - 1, LABELS[:, None]])
def test_labels_that_are_no_classes_of_the_samples_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    arrays = write(tmp_path / "set").manifest["arrays"]
    np.save(tmp_path / "set/labels.npy", labels)
    told = {**arrays["labels.npy"], "shape": list(labels.shape), "dtype": str(labels.dtype)}
    change_manifest(tmp_path / "set", arrays={**arrays, "labels.npy": told})
    with pytest.raises(UserError, match=r"labels\.npy is not a list of 12 class numbers; create the set again"):
        open_refset(tmp_path / "set")


@pytest.mark.parametrize("logp", [LOGP[:11], LOGP[:, :9], LOGP.astype(np.float64), LOGP.sum(1)])
def test_log_probabilities_that_are_not_those_of_the_tokens_are_refused(tmp_path: Path, logp: np.ndarray) -> None:
    arrays = write_scored(tmp_path / "set").manifest["arrays"]
    np.save(tmp_path / "set/logp.npy", logp)
    told = {**arrays["logp.npy"], "shape": list(logp.shape), "dtype": str(logp.dtype)}
    change_manifest(tmp_path / "set", arrays={**arrays, "logp.npy": told})
    with pytest.raises(UserError, match=r"logp\.npy holds .*, but .* are \[12, 10\] float32; create the set again"):
        open_refset(tmp_path / "set")


def test_damaged_log_probabilities_are_found(tmp_path: Path) -> None:
    opened = write_scored(tmp_path / "set")
    file = tmp_path / "set/logp.npy"
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)
    with pytest.raises(UserError, match=r"logp\.npy is damaged"):
        opened.verify()
    os.truncate(file, len(contents) - 1)
    with pytest.raises(UserError, match=r"logp\.npy is missing or truncated"):
        open_refset(tmp_path / "set")


def test_images_have_no_log_probabilities(tmp_path: Path) -> None:
    arrays = write(tmp_path / "set", LOGP).manifest["arrays"]
    np.save(tmp_path / "set/logp.npy", LOGP)
    change_manifest(tmp_path / "set", arrays={**arrays, "logp.npy": arrays["images.npy"]})
    with pytest.raises(UserError, match="the field 'arrays' is missing or has a wrong value"):
        open_refset(tmp_path / "set")


def test_a_set_of_a_later_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set")
    change_manifest(tmp_path / "set", version=2)
    with pytest.raises(UserError, match="version 2 of the format, but this ddo-plugin reads version 1; upgrade"):
        open_refset(tmp_path / "set")


# -- drawing --------------------------------------------------------------------------------------------------------


def draw(fakes: RefsetFakes, seed: int, count: int = 64) -> tuple[torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(seed)
    return fakes.draw(count)


@pytest.mark.parametrize(("samples", "kind"), [(IMAGES, "images"), (LATENTS, "images"), (TOKENS, "tokens")])
def test_draws_are_samples_of_the_set_with_their_own_labels(
    tmp_path: Path, samples: np.ndarray, kind: SampleKind
) -> None:
    drawn, labels = draw(RefsetFakes(write(tmp_path / "set", samples, LABELS, kind)), 0)
    assert labels is not None
    assert labels.dtype == torch.int64
    for sample, label in zip(drawn.numpy(), labels.tolist(), strict=True):
        rows = [row for row in range(12) if np.array_equal(samples[row], sample)]
        assert [LABELS[row] for row in rows] == [label]


def test_log_probabilities_are_drawn_with_their_samples(tmp_path: Path) -> None:
    fakes = RefsetFakes(write_scored(tmp_path / "set"))
    expected, expected_labels = draw(fakes, 0)
    after = torch.rand(1)
    torch.manual_seed(0)
    drawn, labels, logp = fakes.draw_scored(64)
    assert torch.equal(torch.rand(1), after)  # the same random numbers
    assert torch.equal(drawn, expected)
    assert labels is not None and expected_labels is not None and logp is not None
    assert torch.equal(labels, expected_labels)
    for tokens, values in zip(drawn.numpy(), logp.numpy(), strict=True):
        (row,) = np.flatnonzero((tokens == TOKENS).all(1))
        np.testing.assert_array_equal(values, LOGP[row])


def test_a_set_without_log_probabilities_draws_none(tmp_path: Path) -> None:
    fakes = RefsetFakes(write(tmp_path / "set", TOKENS, LABELS, "tokens"))
    assert fakes.draw_scored(4)[2] is None


def test_every_sample_is_drawn_and_some_of_them_twice(tmp_path: Path) -> None:
    fakes = RefsetFakes(write(tmp_path / "set", np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1), None))
    drawn, labels = draw(fakes, 0, 200)
    assert labels is None
    assert drawn.unique().tolist() == list(range(12))


def test_the_same_global_seed_draws_the_same(tmp_path: Path) -> None:
    fakes = RefsetFakes(write(tmp_path / "set"))
    assert torch.equal(draw(fakes, 3)[0], draw(fakes, 3)[0])
    assert not torch.equal(draw(fakes, 3)[0], draw(fakes, 4)[0])


def test_a_run_resumed_from_the_generators_state_goes_on_with_the_same_draws(tmp_path: Path) -> None:
    fakes = RefsetFakes(write(tmp_path / "set"))
    draw(fakes, 3)
    state = torch.get_rng_state()
    expected = fakes.draw(64)[0]
    reopened = RefsetFakes(open_refset(tmp_path / "set"))
    torch.set_rng_state(state)
    assert torch.equal(reopened.draw(64)[0], expected)


def test_a_draw_can_be_changed_and_the_set_stays_as_it_is(tmp_path: Path) -> None:
    opened = write(tmp_path / "set")
    drawn, labels = draw(RefsetFakes(opened), 0)
    assert labels is not None
    drawn.zero_()
    labels.zero_()
    opened.verify()


def test_the_description_identifies_the_set(tmp_path: Path) -> None:
    opened = write(tmp_path / "set")
    description = RefsetFakes(opened).description
    assert json.loads(json.dumps(description)) == description
    assert description["reference_sha256"] == REFERENCE["sha256"]
    assert description["sha256"]["images.npy"] == opened.manifest["arrays"]["images.npy"]["sha256"]
