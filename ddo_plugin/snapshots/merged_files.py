"""Writes merged networks with their sidecars, each complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddo_plugin.base.environment import package_versions
from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import locked, publish_file, refuse_to_replace, scratch_folder, sha256_file, sweep
from ddo_plugin.hooks import plugins
from ddo_plugin.snapshots import sidecar


def name_of(snapshot: Path, w: float) -> str:
    """Return the name of the network that is merged from a snapshot with this w, such as network-w0.5.pkl."""
    number = repr(w + 0.0).removesuffix(".0")  # the sum turns -0.0 into 0.0
    return f"{snapshot.stem}-w{number}{snapshot.suffix}"


def write_merged(
    upstream: str, parents: Mapping[str, tuple[str, Path]], outs: Mapping[Path, float], options: Mapping[str, Any]
) -> str:
    """Merge the networks "a" and "b", each with its source and its file, and return a line that describes them.

    All `outs` lie in one folder. Those that the same command has already finished stay as they are.
    """
    described = {name: {"source": source, "sha256": sha256_file(file)} for name, (source, file) in parents.items()}
    records = {out: {**described, "w": w} for out, w in outs.items()}
    missing = {out: w for out, w in outs.items() if not _is_finished(out, records[out])}
    if not missing:
        sweep(next(iter(outs)).parent)  # the command may have been killed after it had published its last file
        return "the merged networks exist already"
    for out in missing:
        refuse_to_replace(out)
    (_, a), (_, b) = parents["a"], parents["b"]
    made_by = {**_step(b), "upstream": upstream, "versions": package_versions()}
    with scratch_folder(next(iter(missing))) as folder:
        drafts = {out: folder / out.name for out in missing}
        line = plugins.manager().hook.ddo_merge(
            upstream=upstream, a=a, b=b, outs={drafts[out]: w for out, w in missing.items()}, options=options
        )
        if line is None:
            raise UserError(f"no plugin merges networks of {upstream}; `ddo plugins` lists the plugins")
        for out, draft in drafts.items():
            with locked(out.parent):  # two commands must not write a file and its sidecar in turns
                refuse_to_replace(out)
                sidecar.write_merge(out, sha256_file(draft), records[out], made_by)
                publish_file(draft, out)
    return str(line)


def _is_finished(out: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a file is the result of this merge, which its sidecar says. The parents may have moved since."""
    if not out.is_file() or (found := sidecar.merge(out)) is None:
        return False
    return _without_sources(found) == _without_sources(record) and sha256_file(out) == sidecar.sha256(out)


def _without_sources(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {**part, "source": None} if isinstance(part, dict) else part for name, part in record.items()}


def _step(snapshot: Path) -> dict[str, Any]:
    """Return the step of a snapshot as an entry for another sidecar, if its own sidecar names one."""
    return {name: value for name, value in sidecar.read_if_any(snapshot).items() if name == "step"}
