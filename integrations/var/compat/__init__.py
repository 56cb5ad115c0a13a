"""The compat fixes that VAR's code alone needs. Fixes that several upstreams need are in `ddo_plugin`."""

from ddo_integrations.var.compat import cpu, git, no_group

FIXES = (git.FIX, no_group.FIX, cpu.FIX)

__all__ = ["FIXES"]
