"""Statistics files of EDM, EDM2 and OpenAI, and images in their place."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file
from ddo_plugin.evaluation.real_statistics import open_standard
from ddo_plugin.sampling.refsets import format as refset

MU, SIGMA = np.arange(3.0), np.diag([1.0, 2.0, 3.0])
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def test_edms_npz_holds_moments_of_inception(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar10-32x32.npz", mu=MU, sigma=SIGMA)
    standard = open_standard(str(tmp_path / "cifar10-32x32.npz"))
    found = standard.moments_in("inception")
    np.testing.assert_array_equal(found.mean, MU)
    np.testing.assert_array_equal(found.covariance, SIGMA)
    assert standard.images is None
    assert len(standard.sha256) == 64


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_edm2s_pickle_holds_moments_by_metric(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "img64.pkl"
    dino = {"mu": np.arange(2.0), "sigma": np.asfortranarray([[2.0, 1.0], [1.0, 3.0]])}
    statistics = {"num_images": 7, "fid": {"mu": MU, "sigma": SIGMA}, "fd_dinov2": dino}
    path.write_bytes(pickle.dumps(statistics, protocol))
    standard = open_standard(str(path))
    np.testing.assert_array_equal(standard.moments_in("inception").covariance, SIGMA)
    np.testing.assert_array_equal(standard.moments_in("dinov2").covariance, dino["sigma"])
    np.testing.assert_array_equal(standard.moments_in("fd_dinov2").mean, dino["mu"])


def test_openais_npz_holds_moments_and_images(tmp_path: Path) -> None:
    path = tmp_path / "VIRTUAL_imagenet256_labeled.npz"
    np.savez(path, mu=MU, sigma=SIGMA, mu_s=MU + 1, sigma_s=2 * SIGMA, arr_0=IMAGES, arr_1=np.arange(5))
    standard = open_standard(str(path))
    np.testing.assert_array_equal(standard.moments_in("inception", "sfid").mean, MU + 1)
    np.testing.assert_array_equal(standard.moments_in("inception", "sfid").covariance, 2 * SIGMA)
    np.testing.assert_array_equal(standard.moments_in("inception").mean, MU)
    np.testing.assert_array_equal(next(standard.images.batches(9)), IMAGES.transpose(0, 3, 1, 2))


def test_moments_in_other_features_are_measured_where_there_are_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=MU, sigma=SIGMA, arr_0=IMAGES)
    assert open_standard(str(tmp_path / "a.npz")).moments_in("mine") is None
    np.savez(tmp_path / "b.npz", mu=MU, sigma=SIGMA)
    with pytest.raises(UserError, match="statistics of inception, not of the features 'mine'; pass images"):
        open_standard(str(tmp_path / "b.npz")).moments_in("mine")


class Attack:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_that_would_run_a_program_is_refused_and_runs_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "img64.pkl"
    path.write_bytes(pickle.dumps({"fid": {"mu": MU, "sigma": SIGMA}, "more": Attack()}))
    with pytest.raises(UserError, match=r"could run code \(posix.mkdir\)"):
        open_standard(str(path))
    assert not (tmp_path / "pwned").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "pwned").exists(), "the file is harmless, so the refusal above shows nothing"


def test_arrays_that_are_pickles_are_not_unpickled(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", mu=np.array([Attack()], dtype=object), sigma=SIGMA)
    with pytest.raises(UserError, match="the array holds object, not numbers"):
        open_standard("a.npz")
    assert not Path("pwned").exists()


def write(folder: Path) -> dict[str, Path]:
    np.savez(folder / "other.npz", x=MU)
    np.savez(folder / "shapes.npz", mu=MU, sigma=SIGMA[:2])
    np.savez(folder / "nan.npz", mu=MU * np.nan, sigma=SIGMA)
    np.savez(folder / "askew.npz", mu=MU, sigma=SIGMA + np.eye(3, k=1))
    np.savez(folder / "negative.npz", mu=MU, sigma=SIGMA - 2 * np.eye(3))
    many = {f"{number}": {"mu": MU, "sigma": SIGMA} for number in range(9)}
    np.savez(
        folder / "many.npz", **{f"{name}.{key}": array for name, pair in many.items() for key, array in pair.items()}
    )
    (folder / "many.pkl").write_bytes(pickle.dumps(many))
    (folder / "cut.npz").write_bytes((folder / "nan.npz").read_bytes()[:100])
    (folder / "list.pkl").write_bytes(pickle.dumps([1]))
    (folder / "cut.pkl").write_bytes(pickle.dumps({"fid": {"mu": MU, "sigma": SIGMA}})[:200])
    (folder / "page.pkl").write_text("<!doctype html>")
    return {
        "neither mu and sigma nor images": folder / "other.npz",
        r"mu \[3\] and sigma \[2, 3\] do not match": folder / "shapes.npz",
        "contain NaN or infinity": folder / "nan.npz",
        "askew.npz: sigma is not a covariance": folder / "askew.npz",
        "negative.npz: sigma is not a covariance": folder / "negative.npz",
        "many.npz: statistics of 9 kinds, more than 8": folder / "many.npz",
        "many.pkl: statistics of 9 kinds, more than 8": folder / "many.pkl",
        "cannot be read": folder / "cut.npz",
        "no statistics of EDM2": folder / "list.pkl",
        "no statistics of EDM2 .*ends too early|not a valid pickle": folder / "cut.pkl",
        "a web page": folder / "page.pkl",
        "no such file": folder / "absent.npz",
    }


def test_what_holds_no_statistics_is_refused_in_one_line(tmp_path: Path) -> None:
    for words, path in write(tmp_path).items():
        with pytest.raises(UserError, match=words) as refused:
            open_standard(str(path))
        assert str(path) in refused.value.message
        assert "\n" not in refused.value.message


def test_a_reference_set_is_known_by_the_digest_of_its_samples(tmp_path: Path) -> None:
    made_by = {"source": "a.pkl", "sha256": "00"}
    images = IMAGES.transpose(0, 3, 1, 2)
    refset.write(tmp_path / "set", images, None, kind="images", reference=made_by, sampler={}, seed=0)
    standard = open_standard(str(tmp_path / "set"))
    assert standard.description["sha256"] == sha256_file(tmp_path / "set/images.npy")
