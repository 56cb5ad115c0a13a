"""A stand-in for `distutils.util`."""

_TRUE = frozenset({"y", "yes", "t", "true", "on", "1"})
_FALSE = frozenset({"n", "no", "f", "false", "off", "0"})


def strtobool(val: str) -> int:
    """Return 1 for a word that means yes, 0 for a word that means no."""
    word = val.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"neither yes nor no: {val!r}")
    return int(word in _TRUE)
