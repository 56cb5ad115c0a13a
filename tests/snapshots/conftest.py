import sys
import types

import pytest


@pytest.fixture
def persistent(monkeypatch):
    """An object that pickles as one of a persistent class of the NVlabs repositories, without a checkout."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def reconstruct(meta):
        raise AssertionError("the stand-in is for pickling only")

    reconstruct.__module__, reconstruct.__qualname__ = module.__name__, "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = reconstruct
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Persistent:
        def __init__(self, class_name, state, source="class Net: ..."):
            self.meta = {
                "type": "class",
                "version": 6,
                "module_src": source,
                "class_name": class_name,
                "state": state,
            }

        def __reduce__(self):
            return reconstruct, (self.meta,)

    return Persistent
