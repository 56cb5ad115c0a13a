"""The report page needs nothing beside it, and shows text as text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddo_plugin.selfplay.report import figures, page

EVIL = "<script>alert('1')</script> & \"more\""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Elements(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def write(path: Path, **changes: Any) -> str:
    cloud = np.random.default_rng(0).standard_normal((100, 2))
    drawn = [
        page.Figure(figures.grids({"real": np.zeros((10, 1, 8, 8), np.uint8)}), f"grid {EVIL}"),
        page.Figure(figures.clouds({"β·r": cloud}), "cloud"),
    ]
    given: dict[str, Any] = {
        "title": f"title {EVIL}",
        "lead": f"lead {EVIL}",
        "table": page.Table(("", "base", "DDO"), [[f"row {EVIL}", "2.00", "1.00"]], f"note {EVIL}", best=2),
        "sections": [page.Section(f"section {EVIL}", [f"text {EVIL}"], drawn, [f"warning {EVIL}"])],
        "command": f"ddo demo --out '{EVIL}'",
        "versions": f"versions {EVIL}",
    }
    page.write(path, **{**given, **changes})
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text = write(tmp_path / "report.html")
    found = Elements(text)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(found.tags)
    for name, value in found.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:"))
    assert "@import" not in text
    assert "url(http" not in text.replace('"', "").replace("'", "")


def test_every_text_is_shown_as_it_is(tmp_path: Path) -> None:
    found = Elements(write(tmp_path / "report.html"))
    for name in ("title", "lead", "row", "note", "section", "text", "warning", "grid", "versions"):
        assert f"{name} {EVIL}" in found.text
    assert "β·r" in found.text


def test_the_column_to_set_off_is_set_off(tmp_path: Path) -> None:
    text = write(tmp_path / "report.html")
    assert '<td class="best">1.00</td>' in text
    assert "<td>2.00</td>" in text


def test_a_page_without_sections_or_rows_is_a_page(tmp_path: Path) -> None:
    text = write(tmp_path / "report.html", sections=[], table=page.Table((), [], ""))
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.html") == write(tmp_path / "b.html")


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(TypeError):
        write(path, sections=None)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.html"]
