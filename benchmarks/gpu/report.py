"""Turn the results of the GPU kit into Markdown tables: `python -m benchmarks.gpu.report RESULTS`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

HIDDEN = {"part", "name", "ok", "seconds", "error"}


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, or an empty string if it has no rows."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(["", f"| {' | '.join(header)} |", "|---" * len(header) + "|", *lines]) if lines else ""


def shown(value: Any) -> str:
    """Return a value in few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(inner)}" for name, inner in value.items())
    return str(value)


def correctness(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each check of the tiny networks."""
    rows = []
    for row in results:
        if not row["part"].startswith(("speed", "networks")) and row["name"] != "end":
            values = {name: value for name, value in row.items() if name not in HIDDEN}
            told = shown(values) if row["ok"] else " ".join(row["error"].replace("|", "/").split())[-300:]
            rows.append((row["part"], row["name"], "ok" if row["ok"] else "FAILED", told, row["seconds"]))
    return table(("upstream", "check", "", "result", "seconds"), rows)


def speed(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each timing of a step, with the size of its network."""
    sizes = {row["part"]: row for row in results if row["name"] == "network"}
    rows = []
    for row in results:
        if "ms" in row and row["part"] in sizes:
            size = sizes[row["part"]]
            rows.append(
                (
                    row["part"].removeprefix("speed "),
                    f"{size['parameters'] / 1e6:.0f} M",
                    row.get("batch", size["batch"]),
                    row["name"] + (f" (compiled in {row['compile s']} s)" if "compile s" in row else ""),
                    "; ".join(f"{row[name]}" for name in ("ratio", "ratio, amp") if name in row),
                    row.get("overhead ms", ""),
                    row.get("real images/s", ""),
                    row.get("turns", ""),
                    shown(row["ms"]),
                )
            )
    return table(("network", "size", "N", "what", "ratio", "overhead ms", "real images/s", "calls", "median ms"), rows)


def memory(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each measurement of peak memory."""
    rows = [
        (row["part"].removeprefix("speed "), *map(shown, (row["peak GiB"], row.get("static GiB", ""))))
        for row in results
        if "peak GiB" in row
    ]
    return table(("network", "peak GiB", "weights, gradients, Adam and reference, GiB"), rows)


def others(results: Sequence[Mapping[str, Any]]) -> str:
    """Return what has its own form: sampling, waits, profiles and failures."""
    lines = []
    for row in results:
        if row.get("ok") is False and row["part"].startswith("speed"):
            lines.append(f"- {row['part']}, {row['name']}: FAILED, {row['error'][-300:]}")
        elif "images/s" in row:
            told = f"{row['images/s']} images/s, first batch {row['first batch s']} s, {row['turns']} calls"
            lines.append(f"- {row['part']}, {row['name']}: {told}")
        elif "rates" in row:
            lines.append(f"- {row['part']}: {shown(row['rates'])} ({row['steps']} steps, batches of {row['batch']})")
        elif "places" in row:
            count = sum(row["places"].values())
            lines.append(f"- {row['part']}: {count} waits for the device in a step: {shown(row['places'])}")
        elif "rows" in row:
            lines.append(f"- {row['part']}: kernels of a step take {row['total ms']} ms, waits: {row['waits']}; most:")
            lines += [f"    - {kernel['ms']} ms, {kernel['calls']} calls: {kernel['name']}" for kernel in row["rows"]]
    return "\n" + "\n".join(lines)


def ends(results: Sequence[Mapping[str, Any]]) -> str:
    """Return how each part ended."""
    return table(
        ("part", "end", "seconds"),
        [(row["part"], row["status"], row["seconds"]) for row in results if row["name"] == "end"],
    )


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(results: Path) -> None:
    """Print tables of the results."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    device = next((f"{row['device']}, torch {row['torch']}" for row in rows if "device" in row), "unknown device")
    print(f"Results on {device}\n")
    for part in (correctness, speed, memory, others, ends):
        print(part(rows))


if __name__ == "__main__":
    main()
