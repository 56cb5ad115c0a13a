"""Direct Discriminative Optimization as a plugin for EDM, EDM2 and VAR."""

from ddo_plugin.hooks.hookspecs import hookimpl

__all__ = ["hookimpl"]
