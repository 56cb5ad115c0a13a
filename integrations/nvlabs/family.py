"""How the files of an EDM or EDM2 checkout are recognised in a running process."""

from __future__ import annotations

from ddo_plugin import Family

FAMILY = Family(anchor="dnnlib", beside=("dnnlib", "torch_utils", "training"))
