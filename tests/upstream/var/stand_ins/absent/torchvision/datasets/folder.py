"""Images by class: one folder a class, numbered in the order of their names."""

from pathlib import Path

from torch.utils.data import Dataset

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class DatasetFolder(Dataset):
    def __init__(self, root, loader, extensions=None, transform=None):
        self.root, self.loader, self.transform = root, loader, transform
        self.classes = sorted(folder.name for folder in Path(root).iterdir() if folder.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"no folder of a class in {root}")
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.samples = [
            (str(path), number)
            for name, number in self.class_to_idx.items()
            for path in sorted(Path(root, name).rglob("*"))
            if path.suffix.lower() in extensions
        ]
        self.targets = [number for _, number in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, target = self.samples[index]
        image = self.loader(path)
        return image if self.transform is None else self.transform(image), target
