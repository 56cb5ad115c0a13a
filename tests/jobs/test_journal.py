"""The journal: what is appended stays, what was cut short never counted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.jobs.journal import Journal, read


def test_a_reopened_journal_knows_its_facts_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    journal = Journal(path)
    journal.append("finished", out="a", score=1.5)
    journal.append("selected", round=1, why="größer\u2028als\nzwei")
    reopened = Journal(path)
    assert reopened.facts == read(path) == journal.facts
    assert [fact["fact"] for fact in reopened.facts] == ["finished", "selected"]
    assert reopened.facts[1]["why"] == "größer\u2028als\nzwei"


def test_a_fact_counts_once_also_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for _ in range(2):
        journal = Journal(path)
        journal.append("evaluated", seeds=(0, 1), score=2.0)  # a tuple, as JSON has none
        journal.append("evaluated", seeds=(0, 1), score=2.0)
    assert read(path) == [{"fact": "evaluated", "seeds": [0, 1], "score": 2.0}]


def test_a_run_that_takes_over_with_other_settings_records_its_own_conclusions_last(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for settings, winner in [("a", "x"), ("b", "y"), ("a", "x"), ("a", "x")]:  # the last goes on with the third
        journal = Journal(path)
        journal.begin(settings)
        journal.append("winner", network=winner)
    assert [fact["network"] for fact in read(path) if fact["fact"] == "winner"] == ["x", "y", "x"]


def test_facts_are_found_by_name_and_values(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("finished", out="a")
    journal.append("finished", out="b")
    journal.append("collapsed", out="a")
    assert journal.find("finished", out="a") == [{"fact": "finished", "out": "a"}]
    assert len(journal.find("finished")) == 2
    assert journal.find("finished", missing=1) == []


def test_an_unfinished_last_line_is_dropped_and_its_fact_can_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("finished", out="a")
    Journal(path).append("finished", out="b")
    os.truncate(path, path.stat().st_size - 3)
    journal = Journal(path)
    assert journal.facts == [{"fact": "finished", "out": "a"}]
    journal.append("finished", out="b")
    assert [fact["out"] for fact in read(path)] == ["a", "b"]


def test_a_journal_is_read_at_every_length_that_a_writer_may_have_reached(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for out in "abc":
        journal.append("finished", out=out, what="ein größerer Wert")
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert read(path) == journal.facts[: whole[:length].count(b"\n")]


def test_a_journal_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "journal.jsonl") == []


def test_reading_leaves_a_line_alone_that_a_run_is_writing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"fact": "finished"}\n{"fact": "sele')
    read(path)
    assert path.read_text().endswith('"sele')


@pytest.mark.parametrize("damage", [b"\0\0\0", b"\xff\xfe", b"", b"[]", b"7", b'{"score": 1}'])
def test_a_damaged_line_is_one_clear_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"fact": "finished"}\n' + damage + b'\n{"fact": "finished"}\n')
    with pytest.raises(UserError, match=r"journal\.jsonl: line 2 is damaged"):
        Journal(path)


def test_threads_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)

    def work(thread: int) -> None:
        for i in range(20):
            journal.append("finished", thread=thread, i=i)
            journal.append("shared", i=i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(path) == journal.facts
    assert len(journal.find("finished")) == 80
    assert len(journal.find("shared")) == 20


def test_a_fact_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from ddo_plugin.jobs.journal import Journal
Journal(Path(sys.argv[1])).append("finished", out="a")
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "journal.jsonl"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert read(path) == [{"fact": "finished", "out": "a"}]
