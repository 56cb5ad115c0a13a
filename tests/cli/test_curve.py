"""`ddo curve` with a command of a line of python in place of a sampler."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ddo_plugin.cli import main

MEASURE = """
import json, sys, pathlib
scale, out, log = float(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
with log.open("a") as file: file.write(sys.argv[1] + "\\n")
if scale == 9: sys.exit("no such scale")
out.write_text(json.dumps({"metrics": {"fid": 3 + (scale - 1) ** 2, "is": 100 + 50 * scale}}))
"""


@pytest.fixture
def measure(tmp_path: Path):
    """Run `ddo curve` over these scales; a log in the folder says which were measured."""

    def run(scales: str, *options: str, code: str = MEASURE, out: str = "curve") -> Result:
        command = [sys.executable, "-c", code, "{scale}", "{out}", str(tmp_path / "log")]
        return CliRunner().invoke(
            main, ["curve", f"--scales={scales}", f"--out={tmp_path / out}", *options, "--", *command]
        )

    return run


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def test_a_curve_is_a_table_a_file_and_a_figure(measure, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    result = measure("1,0,2.5")
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == ["| 0 | 4.000 | 100.00 |", "| 1 | **3.000** | 150.00 |", "| 2.5 | 5.250 | 225.00 |"]
    points = json.loads((tmp_path / "curve/curve.json").read_text())["points"]
    assert [(point["scale"], point["fid"], point["inception_score"]) for point in points] == [
        (0, 4, 100),
        (1, 3, 150),
        (2.5, 5.25, 225),
    ]
    assert all((tmp_path / "curve" / point["file"]).is_file() for point in points)
    assert (tmp_path / "curve/curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_measured_is_not_measured_again(measure, tmp_path) -> None:
    assert measure("0,1").exit_code == 0
    assert measure("0,1,2").exit_code == 0
    assert log(tmp_path) == ["0", "1", "2"]
    assert measure("0", code=MEASURE + "\n").exit_code == 0
    assert log(tmp_path)[3:] == ["0"], "another command measures anew"


def test_a_scale_that_fails_says_why_and_the_others_are_drawn(measure, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    result = measure("0,9,10")
    assert result.exit_code == 1
    assert "scale-9: exit status 1: no such scale" in result.stderr
    points = json.loads((tmp_path / "curve/curve.json").read_text())["points"]
    assert [point["scale"] for point in points] == [0, 10]
    assert (tmp_path / "curve/curve.png").exists()
    assert measure("0,1").exit_code == 0
    assert sorted(log(tmp_path)) == ["0", "1", "10", "9"]


def test_where_every_scale_fails_there_is_no_curve(measure, tmp_path) -> None:
    result = measure("9")
    assert result.exit_code == 1
    assert "every scale failed, exit status 1" in result.output
    assert not (tmp_path / "curve/curve.json").exists()


def test_without_matplotlib_the_scales_are_measured_and_only_the_figure_is_missing(
    measure, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = measure("0,1")
    assert result.exit_code == 0, result.output
    assert "| 1 | **3.000** | 150.00 |" in result.stdout
    assert "curve.png needs matplotlib: pip install" in result.stdout
    assert (tmp_path / "curve/curve.json").exists()
    assert not (tmp_path / "curve/curve.png").exists()


def test_another_curve_is_drawn_beside(measure, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    assert measure("0,1", out="base").exit_code == 0
    alone = (tmp_path / "base/curve.png").read_bytes()
    assert measure("0,1", f"--beside={tmp_path / 'base'}", out="ddo").exit_code == 0
    assert (tmp_path / "ddo/curve.png").read_bytes() != alone


REFUSALS = {
    "the command lacks {scale}": (["--scales=1"], ["true", "{out}"]),
    "the command lacks {out}": (["--scales=1"], ["true", "{scale}"]),
    "'--scales': '1,x' is not a list of numbers": (["--scales=1,x"], ["true", "{scale}", "{out}"]),
    "'--scales': '1,nan' is not a list of numbers": (["--scales=1,nan"], ["true"]),
    "'--scales': '1e400' is not a list of numbers": (["--scales=1e400"], ["true", "{scale}", "{out}"]),
    "holds no finite metrics fid and is": (["--scales=1"], [sys.executable, "-c", "", "{scale}", "{out}"]),
    "holds no finished curve": (["--scales=1", "--beside=."], ["true", "{scale}", "{out}"]),
    "cannot start `none-such": (["--scales=1"], ["none-such", "{scale}", "{out}"]),
}


@pytest.mark.parametrize("words", REFUSALS)
def test_what_cannot_work_is_one_line(words: str, tmp_path: Path) -> None:
    options, command = REFUSALS[words]
    result = CliRunner().invoke(main, ["curve", *options, f"--out={tmp_path / 'c'}", "--", *command])
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert words in lines[0]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    slow = "import sys, time; print('up', flush=True); time.sleep(60)"
    start = [sys.executable, "-m", "ddo_plugin", "curve", "--scales=1", f"--out={tmp_path / 'c'}", "--"]
    with subprocess.Popen([*start, sys.executable, "-c", slow, "{scale}", "{out}"], stderr=subprocess.PIPE) as first:
        try:
            while first.poll() is None and not list((tmp_path / "c").glob("*.log")):
                pass
            second = subprocess.run([*start, "true", "{scale}", "{out}"], capture_output=True, text=True)
        finally:
            first.terminate()
        said = first.communicate()[1]
    assert second.returncode == 2
    assert "another run is working in" in second.stderr
    assert first.returncode == 128 + signal.SIGTERM, said


def test_a_script_for_a_shell_gets_no_folder_that_it_would_misread(tmp_path) -> None:
    for name in ("a $(touch pwned)", "two words", "quote'"):
        for script in ("echo {scale} > {out}", "echo>{out}"):
            command = ["curve", "--scales=1", f"--out={tmp_path / name}", "--", "sh", "-c", script, "{scale}"]
            result = CliRunner().invoke(main, command)
            assert result.exit_code == 2
            assert "choose a folder without blanks" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"\xff",
        b"[" * 200_000,
        b"[]",
        b'{"points": 1}',
        b'{"points": [1]}',
        b'{"points": [{"scale": 1, "fid": "x", "inception_score": 2, "file": "a"}]}',
        b'{"points": [{"scale": 1, "fid": 9' + b"9" * 400 + b', "inception_score": 2, "file": "a"}]}',
        b'{"points": [{"scale": NaN, "fid": 3, "inception_score": 2, "file": "a"}]}',
    ],
)
def test_a_damaged_curve_and_a_damaged_measurement_are_one_line(measure, tmp_path, content) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/curve.json").write_bytes(content)
    copy = "import shutil, sys; shutil.copy(sys.argv[3][:-3] + 'other/curve.json', sys.argv[2])"
    for result, words in (
        (measure("1", f"--beside={tmp_path / 'other'}"), "holds no finished curve ("),
        (measure("1", code=copy), "holds no finite metrics fid and is ("),
    ):
        assert result.exit_code == 2, result.output
        [line] = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert words in line


def test_the_command_gets_every_digit_of_a_scale(measure, tmp_path) -> None:
    assert measure("1000001,0.1").exit_code == 0
    assert sorted(log(tmp_path)) == ["0.1", "1000001.0"]
