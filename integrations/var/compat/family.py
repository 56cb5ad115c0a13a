"""How the files of a VAR checkout are recognised in a running process."""

from __future__ import annotations

from ddo_plugin import Family

FAMILY = Family(anchor="dist", beside=("dist.py", "trainer.py", "models/var.py", "utils/arg_util.py"))
