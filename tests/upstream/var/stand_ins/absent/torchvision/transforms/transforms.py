"""Of PIL images, as VAR's data pipeline asks for them; random ones draw from torch's global generator."""

import numpy as np
import torch
from PIL import Image


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    """The shorter side becomes `size`."""

    def __init__(self, size, interpolation):
        self.size = size

    def __call__(self, image):
        factor = self.size / min(image.size)
        return image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS)


class RandomCrop:
    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        height, width = self.size
        left = int(torch.randint(image.width - width + 1, ()))
        top = int(torch.randint(image.height - height + 1, ()))
        return image.crop((left, top, left + width, top + height))


class CenterCrop:
    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        height, width = self.size
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


class RandomHorizontalFlip:
    def __call__(self, image):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image


class ToTensor:
    """[C, H, W] in [0, 1]."""

    def __call__(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
