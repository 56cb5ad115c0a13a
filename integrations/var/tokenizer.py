"""The image tokeniser's weights, which VAR's train.py expects in the current folder; sampling looks elsewhere, too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ddo_integrations.var.formats import read_tensors
from ddo_plugin import UserError, atomic_write, local_file, local_rank

FILE = "vae_ch160v4096z32.pth"
URL = f"https://huggingface.co/FoundationVision/var/resolve/main/{FILE}"

LONGEST_REASON = 200  # torch names every tensor


def fetch() -> None:
    """Download them where they are missing. Upstream would call wget, and find out later that it failed."""
    if Path(FILE).exists():
        read_tensors(Path(FILE), "image tokeniser")  # wget may have left a part of it
        return
    if local_rank() != 0:
        return
    try:
        cached = local_file(URL)
        read_tensors(cached, "image tokeniser")
    except UserError as error:
        raise UserError(
            f"{FILE} is not in {Path.cwd()} and cannot be fetched; put it there ({error.message})"
        ) from None
    with cached.open("rb") as source, atomic_write(Path(FILE)) as target:
        shutil.copyfileobj(source, target)


def find(named: str | None, checkout: Path) -> Path:
    """For sampling: the file that is named, or in the current folder, or in the checkout, or downloaded."""
    if named is not None:
        if not Path(named).is_file():
            raise UserError(f"--vae={named}: no such file; it is the image tokeniser's weights, {URL}")
        return Path(named)
    for file in (Path(FILE), checkout / FILE):
        if file.exists():
            return file
    try:
        return local_file(URL)
    except UserError as error:
        places = f"neither in {Path.cwd()} nor in {checkout}"
        raise UserError(f"{FILE} is {places} and cannot be fetched; name it by --vae=FILE ({error.message})") from None


def fill(vae: Any, file: Path) -> None:
    """Upstream's image tokeniser with the weights of a file."""
    try:
        vae.load_state_dict(read_tensors(file, "--vae"))
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise UserError(
            f"--vae={file} does not hold the weights of VAR's image tokeniser, {URL} ({reason} …)"
        ) from None
