"""Names by which the demo's integration is known; light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    pass


UPSTREAM = "digits"


FEATURES = "digits:"  # features "digits:FOLDER" are those of the classifier in a prepared data folder
