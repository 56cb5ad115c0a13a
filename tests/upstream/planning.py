"""For the tests of `ddo plan` in real upstreams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPE = """
title = "A tiny network"
upstream = "{upstream}"
start = "{world.base}"
rounds = 2

[launch]
checkout = "{world.repo}"
{refset}
[training]
{data} = "{world.data}"
{training}

[sweep]
alpha = [1, 2]
beta = [0.1]

[evaluation]
ref = "ref.npz"
"""


def plan(upstream: str, world: Any, completed: Callable[..., str], training: str, refset: str = "") -> str:
    """The output of `ddo plan` for the world's own network, which has to be counted."""
    recipe = world.root / "planned.toml"
    data = world.data_flag.removeprefix("--")
    recipe.write_text(RECIPE.format(upstream=upstream, world=world, training=training, data=data, refset=refset))
    return completed(world.python("-m", "ddo_plugin", "plan", recipe))


def counted(world: Any, completed: Callable[..., str], out: Path, script: Path, *arguments: object) -> dict[str, Any]:
    """What a script counted."""
    paths = ":".join(map(str, (world.repo, script.parent, world.variables.get("PYTHONPATH", ""))))
    completed(world.python(script, *arguments, out, PYTHONPATH=paths))
    return dict(json.loads(out.with_suffix(".json").read_text()))
