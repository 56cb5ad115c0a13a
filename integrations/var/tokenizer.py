"""The image tokeniser's weights, which VAR's train.py expects in the current folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ddo_integrations.var.formats import read_tensors
from ddo_plugin.download import local_file
from ddo_plugin.errors import UserError
from ddo_plugin.files import atomic_write

FILE = "vae_ch160v4096z32.pth"
URL = f"https://huggingface.co/FoundationVision/var/resolve/main/{FILE}"


def fetch() -> None:
    """Download them where they are missing. Upstream would call wget, and find out later that it failed."""
    if Path(FILE).exists():
        read_tensors(Path(FILE), "image tokeniser")  # wget may have left a part of it
        return
    if os.environ.get("LOCAL_RANK", "0") != "0":
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
