"""For the tests' processes: a VAR that two cores train in seconds, and a torchvision where there is none.

train.py builds its autoencoder with ch=160: 436 MB. Here every one has ch=32, whatever is asked for.
"""

import functools
import sys
import time
from pathlib import Path

from after_import import after_import

CHANNELS = 32  # the fewest: upstream normalises in 32 groups


def narrow(vqvae):
    original = vqvae.VQVAE.__init__

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):  # noqa: N807
        original(self, *args, **kwargs | {"ch": CHANNELS})

    vqvae.VQVAE.__init__ = __init__


def hurry(original):
    """train.py sleeps six seconds at its end."""

    @functools.wraps(original)
    def sleep(seconds):
        if sys._getframe(1).f_globals.get("__name__") != "__main__":
            original(seconds)

    return sleep


after_import("models.vqvae", narrow)
sys.path.append(str(Path(__file__).parent / "absent"))  # at the end: a real torchvision comes first
time.sleep = hurry(time.sleep)
