"""The report's page: one HTML file without any other files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import jinja2

from ddo_plugin.base.files import atomic_write


@dataclass(frozen=True)
class Figure:
    """A picture and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    best: int = -1  # index of the column to highlight


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading."""

    title: str
    texts: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    warnings: Sequence[str] = field(default=())
    table: Table | None = None


def write(
    path: Path, *, title: str, lead: str, table: Table, sections: Sequence[Section], command: str, versions: str
) -> None:
    """Write the page atomically."""
    template = files("ddo_plugin.selfplay.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(
        title=title, lead=lead, table=table, sections=sections, command=command, versions=versions
    )
    with atomic_write(path) as file:
        file.write(page.encode())
