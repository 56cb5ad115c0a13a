"""Networks for upstream's scripts, which unpickle what they are given: written anew from what was read safely.

A network's own file never reaches such a script, because an object anywhere in a pickle can carry a stranger's code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddo_plugin.base.files import atomic_write
from ddo_plugin.checkouts.checkout import Checkout, make_importable
from ddo_plugin.snapshots.pickles import network


def write_network(source: Path, to: Path, checkout: Checkout, beside: Callable[[], Mapping[str, Any]]) -> bool:
    """Write the network of a snapshot as an object of the checkout's class, and the entries that `beside` returns.

    Return whether the snapshot carries the same source as the checkout. `beside` can import from the checkout.
    """
    make_importable(checkout.root)
    loaded = network.load(source, classes=checkout.upstream.network_classes, trust_option="--trust")
    with atomic_write(to) as file:
        pickle.dump({"ema": loaded.module, **beside()}, file)
    return loaded.source_matches
