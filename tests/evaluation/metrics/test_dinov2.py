"""DINOv2 from a folder of torch.hub, in which a tiny network has the place of the published one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddo_plugin.base.errors import UserError
from ddo_plugin.evaluation.metrics import dinov2
from ddo_plugin.evaluation.real_statistics import Standard
from ddo_plugin.hooks import plugins
from tests.evaluation.metrics.test_inception import Attack

# Its features are the pixels that it is given, at 16 times 16 places.
CODE = """
import warnings
import torch

dependencies = ["torch"]

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.scale * images[:, :, 7::14, 7::14].flatten(1)

def dinov2_vitl14(pretrained=True):
    assert not pretrained, "would be downloaded"
    warnings.warn("xFormers is not available (Attention)")
    return Tiny()
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Path:
    """A folder of torch.hub; the network's weights say that features are doubled."""
    (tmp_path / dinov2.CODE).mkdir()
    (tmp_path / dinov2.CODE / "hubconf.py").write_text(CODE)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"scale": torch.tensor([2.0])}, tmp_path / dinov2.WEIGHTS)
    monkeypatch.setenv(dinov2.VARIABLE, str(tmp_path))
    monkeypatch.setenv("DDO_DEVICE", "cpu")
    return tmp_path


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [32, 300])
def test_images_are_resized_and_normalised_as_by_pillow_and_numpy(side: int, hub: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    extractor = plugins.manager().hook.ddo_features(name="dinov2")
    resized = [
        np.stack([Image.fromarray(c.astype(np.float32)).resize((224, 224), Image.Resampling.BICUBIC) for c in image])
        for image in images
    ]
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    expected = 2 * ((np.stack(resized) / 255 - mean) / deviation)[:, :, 7::14, 7::14].reshape(2, -1)
    np.testing.assert_allclose(extractor(images), expected, atol=1e-4)
    grey = extractor(images[:, :1])  # as three equal channels
    np.testing.assert_array_equal(grey, extractor(images[:, :1].repeat(3, 1)))
    assert extractor.description["weights"] == str(hub / dinov2.WEIGHTS)


def test_they_are_the_features_of_the_statistics_for_fd_dinov2() -> None:
    moments = object()
    assert Standard("img512.pkl", {"fd_dinov2": moments}).moments_in(dinov2.NAME) is moments


@pytest.mark.parametrize("missing", [dinov2.CODE, dinov2.WEIGHTS])
def test_what_is_missing_is_one_line_with_its_place(missing: str, hub: Path) -> None:
    (hub / missing).rename(hub / "elsewhere")
    with pytest.raises(UserError, match="nothing is downloaded") as refused:
        dinov2.load()
    for words in (str(hub / missing), dinov2.VARIABLE, "torch.hub.load('facebookresearch/dinov2:main'"):
        assert words in refused.value.message
    assert "\n" not in refused.value.message


def test_a_weight_file_that_is_a_program_is_not_run(hub: Path, monkeypatch) -> None:
    monkeypatch.chdir(hub)
    torch.save({"scale": Attack()}, dinov2.WEIGHTS)
    with pytest.raises(UserError, match="do not make a DINOv2 network"):
        dinov2.load()
    assert not Path("pwned").exists()


def test_other_weights_are_refused_in_one_line(hub: Path) -> None:
    torch.save({"x": torch.zeros(1)}, hub / dinov2.WEIGHTS)
    with pytest.raises(UserError, match=r"do not make a DINOv2 network .*scale.*; download both again") as refused:
        dinov2.load()
    assert "\n" not in refused.value.message
