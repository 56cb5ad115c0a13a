"""Run every benchmark that needs no checkout.

A benchmark that needs a checkout is a click command with an argument for its path, so it is skipped here.
"""

from __future__ import annotations

import importlib
import pkgutil

import click

import benchmarks

for module in pkgutil.iter_modules(benchmarks.__path__):
    main = vars(importlib.import_module(f"benchmarks.{module.name}")).get("main")
    if main is not None and not isinstance(main, click.Command):
        main()
