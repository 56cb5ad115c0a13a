"""The weights of VAR's image tokenizer, which train.py expects in the current folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ddo_integrations.var.formats import read_tensors
from ddo_plugin import UserError, atomic_write, local_file, local_rank

FILE = "vae_ch160v4096z32.pth"
URL = f"https://huggingface.co/FoundationVision/var/resolve/main/{FILE}"

LONGEST_REASON = 200  # characters; torch lists every tensor


def fetch() -> None:
    """Download the weights to the current folder if they are missing. Upstream would not notice a failed download."""
    if Path(FILE).exists():
        read_tensors(Path(FILE), "image tokenizer")  # wget can leave an incomplete file
        return
    if local_rank() != 0:
        return
    try:
        cached = local_file(URL)
        read_tensors(cached, "image tokenizer")
    except UserError as error:
        raise UserError(
            f"{FILE} is not in {Path.cwd()}, and its download failed; copy it there ({error.message})"
        ) from None
    with cached.open("rb") as source, atomic_write(Path(FILE)) as target:
        shutil.copyfileobj(source, target)


def find(file: str | None, checkout: Path) -> Path:
    """Return the weights for sampling: the named file, or in the current folder, the checkout or the download cache."""
    if file is not None:
        if not Path(file).is_file():
            raise UserError(f"--vae={file}: no such file; pass the weights of the image tokenizer, {URL}")
        return Path(file)
    for candidate in (Path(FILE), checkout / FILE):
        if candidate.exists():
            return candidate
    try:
        return local_file(URL)
    except UserError as error:
        places = f"neither in {Path.cwd()} nor in {checkout}"
        raise UserError(
            f"{FILE} is {places}, and its download failed; pass it as --vae=FILE ({error.message})"
        ) from None


def fill(vae: Any, file: Path) -> None:
    """Load the weights of a file into upstream's image tokenizer."""
    try:
        vae.load_state_dict(read_tensors(file, "--vae"))
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise UserError(
            f"--vae={file} does not hold the weights of VAR's image tokenizer, {URL} ({reason} …)"
        ) from None
