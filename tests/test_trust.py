"""The command that counts the promises: its exit status tells whether all of them held."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import trust


@pytest.mark.parametrize(("failures", "status"), [([], 0), (["the file ran code"], 1)])
def test_a_promise_that_fails_is_told_and_makes_the_status_1(
    monkeypatch: pytest.MonkeyPatch, failures: list[str], status: int
) -> None:
    def row(folder: Path, quick: bool) -> trust.Row:
        assert quick and not list(folder.iterdir())
        return trust.Row("no code is run", 1234, failures, "0 executed")

    monkeypatch.setattr(trust, "ROWS", (row,))
    result = CliRunner().invoke(trust.main, ["--quick"])
    assert result.exit_code == status
    assert result.stdout.splitlines()[1].split()[:5] == ["no", "code", "is", "run", "1,234"]
    assert result.stderr.split("\n") == ["", *failures, ""] if failures else not result.stderr


def test_the_page_lists_the_rows_in_their_order() -> None:
    page = (Path(__file__).parents[1] / "docs/security.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| [^|]+ \| `(\w+)` \|", page, re.MULTILINE) == [row.__name__ for row in trust.ROWS]
