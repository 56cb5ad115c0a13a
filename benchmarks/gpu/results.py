"""The results of the parts: one JSON line each, appended to $OUT/results.jsonl as soon as it is known.

`python -m benchmarks.gpu.results PART STATUS SECONDS` records how a part ended; run.sh calls it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STATUSES = {"0": "finished", "124": "stopped at its time limit", "137": "killed", "left out": "left out: no time left"}


def out() -> Path:
    """Return the folder of the results."""
    return Path(os.environ["OUT"])


def record(part: str, name: str, **values: Any) -> None:
    """Append a line; a single write, so that parts that run side by side do not mix their lines."""
    line = json.dumps({"part": part, "name": name, **values})
    with (out() / "results.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def attempt(part: str, name: str, action: Callable[[], Mapping[str, Any]]) -> bool:
    """Run an action and record what it returns, or its error. Return whether it succeeded."""
    start = time.perf_counter()
    try:
        values = {"ok": True, **action()}
    except Exception as error:
        traceback.print_exc()
        values = {"ok": False, "error": f"{type(error).__name__}: {error}"[-1500:]}
    record(part, name, **values, seconds=round(time.perf_counter() - start, 2))
    return bool(values["ok"])


if __name__ == "__main__":
    part, status, seconds = sys.argv[1:]
    record(part, "end", status=STATUSES.get(status, f"failed with status {status}"), seconds=int(seconds))
