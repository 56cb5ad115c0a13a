"""A plugin for the processes of a test: a folder that Python takes for one with an installed package."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, code: str) -> Path:
    """Install a module of this name as a plugin, and return the folder for PYTHONPATH."""
    (folder / f"{name}.py").write_text(code)
    about = folder / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[ddo_plugin]\n{name} = {name}\n")
    return folder
