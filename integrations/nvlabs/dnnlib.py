"""The NVlabs repositories' `dnnlib` where one is importable, ours where none is: the same names, the same behaviour.

In an upstream's process its own classes are used, so that `isinstance` and pickles agree. `open_url` is always ours:
it shares upstream's cache and adds resuming and checksums.
"""

from __future__ import annotations

from ddo_plugin import open_url

try:
    from dnnlib import EasyDict
    from dnnlib.util import call_func_by_name, construct_class_by_name, get_obj_by_name
except ImportError:  # no checkout on the path, or one whose dnnlib needs what this environment lacks
    from ddo_integrations.nvlabs.objects import EasyDict, call_func_by_name, construct_class_by_name, get_obj_by_name

__all__ = ["EasyDict", "call_func_by_name", "construct_class_by_name", "get_obj_by_name", "open_url"]
