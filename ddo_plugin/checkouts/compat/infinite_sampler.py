"""torch dropped an argument of `Sampler.__init__`. The InfiniteSampler of EDM and EDM2 passes its dataset there."""

from __future__ import annotations

import warnings

from ddo_plugin.hooks.types import Fix


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
        """Accept and ignore the data source, as torch did."""

    Sampler.__init__ = __init__  # type: ignore[method-assign]


FIX = Fix(
    "sampler",
    breaks="training fails at its first batch: Sampler.__init__ does not accept a data source any more",
    does="Sampler.__init__ accepts and ignores a data source again",
    needed=_needed,
    apply=_apply,
    to_train=True,
)
