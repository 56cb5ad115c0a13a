"""Inception through torch-fidelity: with weights that a test can make, and where they are missing."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ddo_plugin.base.errors import UserError
from ddo_plugin.evaluation.metrics import inception
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Classifier, SpatialExtractor

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), dtype=np.uint8)


@pytest.fixture
def network(torch_fidelity, tmp_path: Path) -> torch.nn.Module:
    """torch-fidelity's network with random weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Blank(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            """Stay as made."""

    torch.save({}, tmp_path / "none.pth")
    torch.manual_seed(0)
    return Blank("blank", inception.LAYERS, feature_extractor_weights_path=tmp_path / "none.pth")


@pytest.fixture
def weights(network, tmp_path: Path, monkeypatch) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setenv(inception.VARIABLE, str(path))
    monkeypatch.setenv("DDO_DEVICE", "cpu")
    return path


def test_features_and_logits_are_those_of_torch_fidelity(network, weights) -> None:
    extractor = plugins.manager().hook.ddo_features(name="inception")
    assert isinstance(extractor, Classifier)
    features, logits = extractor.with_logits(IMAGES)
    expected = network(torch.from_numpy(IMAGES))
    np.testing.assert_array_equal(features, expected[0].numpy())
    np.testing.assert_array_equal(logits, expected[1].numpy())
    assert (features.shape, logits.shape) == ((1, 2048), (1, 1008))
    assert (extractor.description["weights"], extractor.description["device"]) == (str(weights), "cpu")
    grey = extractor(IMAGES[:, :1])  # as three equal channels
    np.testing.assert_array_equal(grey, extractor(IMAGES[:, :1].repeat(3, 1)))


def test_features_for_sfid_are_the_first_channels_of_the_first_part_of_mixed_6(network, weights) -> None:
    """In the order of OpenAI's evaluator, whose layers are [N, H, W, C]; the part is computed here by itself."""
    seen: list[torch.Tensor] = []
    network.Mixed_6d.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    network(torch.from_numpy(IMAGES))
    part = network.Mixed_6d.branch1x1(seen[0]).numpy()  # [1, 192, 17, 17]
    extractor = inception.load()
    assert isinstance(extractor, SpatialExtractor)
    features, logits, spatial = extractor.with_spatial(IMAGES)
    np.testing.assert_array_equal(spatial, part.transpose(0, 2, 3, 1)[..., :7].reshape(1, 2023))
    assert np.ptp(spatial) > 0
    np.testing.assert_array_equal(features, extractor(IMAGES))
    np.testing.assert_array_equal(logits, extractor.with_logits(IMAGES)[1])


@pytest.fixture
def rounding() -> Iterator[None]:
    """A process that lets GPUs round to TF32, as torch does for convolutions unasked."""
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


def test_nothing_is_rounded_to_tf32_on_the_way(weights, rounding, monkeypatch) -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    class Watch(torch.nn.Module):
        def forward(self, images):
            seen.append(allowed())
            return images, images

    seen: list[tuple[bool, bool]] = []
    extractor = inception.load()
    monkeypatch.setattr(extractor, "_network", Watch())
    assert allowed() == (True, True)
    extractor.with_logits(IMAGES)
    assert seen == [(False, False)]
    assert allowed() == (True, True)


class Attack:
    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


def test_a_weight_file_that_is_a_program_is_not_run(torch_fidelity, tmp_path, monkeypatch) -> None:
    """torch-fidelity itself loads it with weights_only=False."""
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Attack()}, "weights.pth")
    monkeypatch.setenv(inception.VARIABLE, "weights.pth")
    with pytest.raises(UserError, match="no weights of torch-fidelity's Inception"):
        inception.load()
    assert not Path("pwned").exists()
    torch.load("weights.pth", weights_only=False)
    assert Path("pwned").exists()


def test_missing_weights_are_one_line_with_the_file_and_the_place(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(inception.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.hub._hub_dir, before = None, torch.hub._hub_dir
    try:
        with pytest.raises(UserError) as refused:
            plugins.manager().hook.ddo_features(name="inception")
    finally:
        torch.hub._hub_dir = before
    for words in (str(tmp_path / "hub/checkpoints" / inception.FILE), inception.URL, inception.VARIABLE):
        assert words in refused.value.message


def test_the_published_file_is_held_to_its_digest(tmp_path, monkeypatch) -> None:
    path = tmp_path / inception.FILE
    path.write_bytes(pickle.dumps({}))
    monkeypatch.setenv(inception.VARIABLE, str(path))
    with pytest.raises(UserError, match="damaged: its sha256 does not begin with 6726825d"):
        inception.load()


def test_other_weights_are_refused_in_one_line(torch_fidelity, tmp_path, monkeypatch) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    monkeypatch.setenv(inception.VARIABLE, str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="no weights of torch-fidelity's Inception") as refused:
        inception.load()
    assert "\n" not in refused.value.message


def test_other_names_are_somebody_elses() -> None:
    assert plugins.manager().hook.ddo_features(name="inception-v4") is None
