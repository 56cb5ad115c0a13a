"""For the tests' processes: a VAR that two cores train in seconds, and a torchvision where there is none.

train.py builds its autoencoder with ch=160: 436 MB. Here every one has ch=32, whatever is asked for.
"""

import functools
import sys
import time
from importlib.machinery import PathFinder
from pathlib import Path

CHANNELS = 32  # the fewest: upstream normalises in 32 groups


class Shrink:
    """Finds models/vqvae.py, and narrows its autoencoder once it is loaded."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "models.vqvae":
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.VQVAE.__init__ = narrow(module.VQVAE.__init__)

        spec.loader.exec_module = exec_module
        return spec


def narrow(original):
    @functools.wraps(original)
    def __init__(self, *args, **kwargs):  # noqa: N807
        original(self, *args, **kwargs | {"ch": CHANNELS})

    return __init__


def hurry(original):
    """train.py sleeps six seconds at its end."""

    @functools.wraps(original)
    def sleep(seconds):
        if sys._getframe(1).f_globals.get("__name__") != "__main__":
            original(seconds)

    return sleep


sys.meta_path.insert(0, Shrink)
sys.path.append(str(Path(__file__).parent / "absent"))  # at the end: a real torchvision comes first
time.sleep = hurry(time.sleep)
