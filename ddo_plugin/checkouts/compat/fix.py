"""What a fix is: a name, one line for people, a test whether it is needed, and the change itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ddo_plugin.checkouts.compat.ownership import FAMILIES, Family


@dataclass(frozen=True)
class Fix:
    """One thing that upstream code needs and this environment lacks."""

    name: str
    breaks: str  # what goes wrong without it
    does: str  # what applying it changes
    needed: Callable[[], bool]  # judged by behaviour wherever that is cheap
    apply: Callable[[], None]
    for_imports: bool = False  # upstream cannot be imported without it
    to_train: bool = False  # no training run starts without it
    families: tuple[Family, ...] = FAMILIES  # whose code needs it
