"""The NVlabs repositories' `dnnlib` if it can be imported, else ours: the same names, the same behaviour.

An upstream's process uses upstream's own classes, so that `isinstance` and pickles agree. `open_url` is always ours:
it shares upstream's cache and adds resuming and checksums.
"""

from __future__ import annotations

from ddo_plugin import open_url

try:
    from dnnlib import EasyDict
    from dnnlib.util import call_func_by_name, construct_class_by_name, get_obj_by_name
except ImportError:  # no checkout on the path, or its dnnlib needs a missing package
    from ddo_integrations.nvlabs.objects import EasyDict, call_func_by_name, construct_class_by_name, get_obj_by_name

__all__ = ["EasyDict", "call_func_by_name", "construct_class_by_name", "get_obj_by_name", "open_url"]
