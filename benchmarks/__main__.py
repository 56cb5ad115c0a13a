"""Run every benchmark that needs nothing but this machine; those that need a checkout are commands of their own."""

from __future__ import annotations

import importlib
import pkgutil

import click

import benchmarks

for module in pkgutil.iter_modules(benchmarks.__path__):
    main = vars(importlib.import_module(f"benchmarks.{module.name}")).get("main")
    if main is not None and not isinstance(main, click.Command):
        main()
