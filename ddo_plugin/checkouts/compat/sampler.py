"""torch dropped the argument of `Sampler.__init__`; the InfiniteSampler of EDM and EDM2 passes its dataset there."""

from __future__ import annotations

import warnings

from ddo_plugin.checkouts.compat import ownership
from ddo_plugin.checkouts.compat.fix import Fix


def _needed() -> bool:
    from torch.utils.data import Sampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the releases in between only warn
        try:
            Sampler.__init__(object.__new__(Sampler), [0])  # type: ignore[call-arg]  # torch's own stub has moved on
        except TypeError:
            return True
    return False


def _apply() -> None:
    from torch.utils.data import Sampler

    def __init__(self: object, data_source: object = None) -> None:  # noqa: N807
        """Accepts and ignores the data source, as torch did."""

    Sampler.__init__ = __init__  # type: ignore[method-assign]


FIX = Fix(
    "sampler",
    breaks="training stops at its first batch: Sampler.__init__ takes no data source any more",
    does="Sampler.__init__ takes and ignores one again",
    needed=_needed,
    apply=_apply,
    to_train=True,
    families=(ownership.NVLABS,),
)
