"""`ddo run` and the other commands on a checkout of an upstream that a stranger's plugin brings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddo_plugin.checkouts.patching.format import render
from ddo_plugin.checkouts.patching.make import compare
from tests.processes import run_python

TRAIN = """import json
import multiprocessing
import os
import sys

import helper
from pkg import inner


def in_worker(_):
    return [__name__, helper.patched(), inner.patched()]


def main():
    if "fail" in sys.argv:
        raise RuntimeError("on purpose")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        worker = pool.map(in_worker, [0])[0]
    facts = {
        "arguments": sys.argv[1:],
        "name": __name__,
        "script": os.path.basename(__file__),
        "script is main": os.path.samefile(__file__, sys.modules["__main__"].__file__),
        "patched": [helper.patched(), inner.patched()],
        "worker": worker,
        "data": helper.data(),
        "beside modules": [os.path.realpath(helper.__file__), os.path.realpath(inner.__file__)],
        "other module": inner.sibling(),
        "cwd": os.getcwd(),
    }
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
"""
HELPER = """from pathlib import Path

state = "pristine"
count = 0


def patched():
    return state


def data():
    return (Path(__file__).parent / "data.txt").read_text()
"""
INNER = """from pkg import other

state = "pristine"
count = 0


def patched():
    return state


def sibling():
    return other.NAME
"""
TOOL = """import json
import multiprocessing
import os
import sys

import helper
from torch.utils.data import Sampler


def in_worker(_):
    return helper.patched()


if __name__ == "__main__":
    Sampler([1])  # refused by today's torch unless it is mended
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(json.dumps([sys.argv[1:], os.getcwd(), helper.patched(), *pool.map(in_worker, [0])]))
    sys.exit(len(sys.argv) - 1)
"""
FILES = {
    "train.py": TRAIN,
    "tool.py": TOOL,
    "helper.py": HELPER,
    "pkg/__init__.py": "VALUE = 1\n",
    "pkg/inner.py": INNER,
    "pkg/other.py": 'from pkg import VALUE\n\nNAME = f"other {VALUE}"\n',
    "data.txt": "data",
}
PLUGIN = """from pathlib import Path

from ddo_plugin import hookimpl
from ddo_plugin.hooks.types import Upstream

HERE = Path(__file__).parent


@hookimpl
def ddo_upstreams():
    landmarks = {"helper.py": r"^def patched", "pkg/inner.py": r"^def sibling"}
    return [Upstream("fourth", "a fourth upstream", "train.py", landmarks, HERE / "fourth.patch", HERE / "fourth.json")]
"""


def insert(text: str, after: str, line: str) -> str:
    assert after in text
    return text.replace(after, f"{after}{line}\n", 1)


PATCHED = {
    "train.py": insert(TRAIN, "def main():\n", '    print("DDO was here")'),
    "helper.py": insert(HELPER, 'state = "pristine"\n', 'state = "patched"'),
    "pkg/inner.py": insert(INNER, 'state = "pristine"\n', 'state = "patched"'),
}


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


@pytest.fixture
def ddo(tmp_path, monkeypatch):
    """A function that runs `ddo` where the stranger's plugin is installed."""
    site = tmp_path / "site"
    (site / "stranger-1.0.dist-info").mkdir(parents=True)
    (site / "stranger-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (site / "stranger-1.0.dist-info/entry_points.txt").write_text("[ddo_plugin]\nfourth = stranger\n")
    (site / "stranger.py").write_text(PLUGIN)
    patches = tuple(compare(name, FILES[name].encode(), text.encode()) for name, text in PATCHED.items())
    diff, digests = render(patches)
    (site / "fourth.patch").write_bytes(diff)
    (site / "fourth.json").write_text(json.dumps(digests))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("DDO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)

    def run(*arguments: str, cwd: Path = tmp_path, status: int = 0) -> str:
        done = run_python(["-m", "ddo_plugin", *arguments], cwd=cwd)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def git_status(folder: Path) -> str:
    command = ["git", "-C", str(folder), "status", "--porcelain", "--ignored"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def facts(output: str) -> dict:
    assert output.startswith("DDO was here\n")
    return json.loads(output.removeprefix("DDO was here\n"))


@pytest.mark.usefixtures("own_interpreters")
def test_run_behaves_as_the_patched_script_and_leaves_the_checkout_pristine(ddo, checkout, tmp_path):
    ran = facts(ddo("run", "checkout", "train.py", "--", "--outdir=out", "rel/ative", "--", "-x"))
    assert git_status(checkout) == ""
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "checkout", "site"}
    ddo("apply", "checkout")
    command = [sys.executable, "checkout/train.py", "--outdir=out", "rel/ative", "--", "-x"]
    patched = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert ran == facts(patched)
    assert ran["arguments"] == ["--outdir=out", "rel/ative", "--", "-x"]
    assert ran["patched"] == ["patched", "patched"]
    assert ran["worker"] == ["__mp_main__", "patched", "patched"]
    assert ran["beside modules"] == [str(checkout / "helper.py"), str(checkout / "pkg/inner.py")]


def test_run_takes_this_folder_and_upstreams_script_unless_told(ddo, checkout):
    assert facts(ddo("run", "--", "a", cwd=checkout))["arguments"] == ["a"]
    assert facts(ddo("run", "train.py", cwd=checkout))["cwd"] == str(checkout)
    assert facts(ddo("run", "./train.py", "--", "--help", cwd=checkout))["arguments"] == ["--help"]


def test_a_script_that_needs_no_patch_runs_as_it_is_on_todays_stack(ddo, checkout, tmp_path):
    assert json.loads(ddo("run", "checkout", "tool.py")) == [[], str(tmp_path), "pristine", "pristine"]
    ddo("run", "checkout", str(checkout / "tool.py"), "--", "a", "--", "b", status=3)
    assert git_status(checkout) == ""


def test_it_runs_although_the_patch_has_no_place(ddo, checkout):
    (checkout / "helper.py").write_text(HELPER.replace('"pristine"', '"mine"'))
    assert json.loads(ddo("run", "tool.py", cwd=checkout))[2:] == ["mine", "mine"]


def test_torchrun_starts_it_too_from_outside_and_from_inside(ddo, checkout, monkeypatch):
    rank = "import os, sys\nos.write(1, f'rank {os.environ[\"RANK\"]} {sys.argv[1:]}\\n'.encode())\n"
    (checkout / "ranks.py").write_text(rank)
    two, expected = ["--standalone", "--nproc_per_node=2"], ["rank 0 ['a']", "rank 1 ['a']"]
    told = ddo("run", "--torchrun", " ".join(two), "ranks.py", "--", "a", cwd=checkout)
    assert sorted(told.split("\n"))[1:] == expected
    inside = ["-m", "torch.distributed.run", *two, "-m", "ddo_plugin", "run", "ranks.py", "--", "a"]
    done = run_python(inside, cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n"))[1:] == expected


def test_torchrun_leaves_the_scripts_own_arguments_alone(ddo, checkout):
    """By itself it takes fid.py's --num for one of its own that begins so, of which it has two."""
    one, argument = ["--standalone", "--nproc_per_node=1"], "--num=6"
    (checkout / "arguments.py").write_text("import os, sys\nos.write(1, repr(sys.argv[1:]).encode())\n")
    assert ddo("run", "--torchrun", " ".join(one), "arguments.py", "--", argument, "--", "-m", cwd=checkout) == repr(
        [argument, "--", "-m"]
    )
    torchrun = ["-m", "torch.distributed.run"]
    if "--numa" in run_python([*torchrun, "--help"]).stdout:
        assert run_python([*torchrun, *one, "arguments.py", argument], cwd=checkout).returncode != 0


@pytest.mark.parametrize("script", ["./train.py", "pkg/../train.py", "ABSOLUTE", "LINKED"])
def test_however_the_training_script_is_written_it_is_patched(ddo, checkout, tmp_path, script):
    (tmp_path / "link").symlink_to(checkout)
    script = {"ABSOLUTE": str(checkout / "train.py"), "LINKED": str(tmp_path / "link/train.py")}.get(script, script)
    assert facts(ddo("run", "checkout", script))["patched"] == ["patched", "patched"]


def test_a_traceback_shows_the_lines_that_ran_and_the_exit_status_is_the_scripts(ddo, checkout):
    errors = ddo("run", "checkout", "--", "fail", status=1)
    line = next(n for n, text in enumerate(PATCHED["train.py"].split("\n"), 1) if "RuntimeError" in text)
    assert f'train.py", line {line}, in main' in errors
    assert 'raise RuntimeError("on purpose")' in errors
    assert "ddo_plugin" not in errors.split("Traceback")[1]


def test_run_keeps_a_users_edits_and_sees_the_next_ones(ddo, checkout):
    script = checkout / "train.py"
    script.write_text("# mine\n" + script.read_text().replace('"cwd": os', '"mine": 1, "cwd": os'))
    assert facts(ddo("run", "checkout"))["mine"] == 1
    script.write_text(script.read_text().replace('"mine": 1', '"mine": 2'))
    assert facts(ddo("run", "checkout"))["mine"] == 2


def test_run_works_in_a_patched_checkout_and_in_a_read_only_one(ddo, checkout):
    ddo("apply", "checkout")
    before = {name: (checkout / name).read_bytes() for name in FILES}
    for folder in (checkout, checkout / "pkg"):
        folder.chmod(0o555)
    assert facts(ddo("run", "checkout"))["patched"] == ["patched", "patched"]
    for folder in (checkout, checkout / "pkg"):
        folder.chmod(0o755)
    assert before == {name: (checkout / name).read_bytes() for name in FILES}


def test_damaged_copies_in_the_cache_are_written_again(ddo, checkout, tmp_path):
    ddo("run", "checkout")
    for copy in (tmp_path / "cache/run").rglob("*.py"):
        copy.write_text("nonsense(")
    assert facts(ddo("run", "checkout"))["patched"] == ["patched", "patched"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "nowhere"], "nowhere: no such folder"),
        (["run", "site"], "is not a checkout of a supported upstream"),
        (["run", "checkout", "other.py"], "other.py: no such file in "),
        (["run", "checkout", "../site/stranger.py"], "../site/stranger.py: not a script of the checkout"),
        (["run", "checkout", "train.py", "--outdir=x"], "ddo run SCRIPT -- --outdir"),
        (["run", "checkout", "train.py", "x"], "arguments of the script go after `--`"),
    ],
)
def test_what_run_cannot_do_it_says_in_a_line(ddo, checkout, arguments, reason):
    assert reason in ddo(*arguments, status=2)
    assert git_status(checkout) == ""


def test_a_dry_run_prints_the_change_and_makes_none(ddo, checkout):
    diff = ddo("apply", "--dry-run", "checkout")
    assert '+    print("DDO was here")' in diff
    assert not [line for line in diff.split("\n") if line.startswith("-") and not line.startswith("---")]
    assert git_status(checkout) == ""
    ddo("apply", "checkout")
    assert subprocess.run(["git", "apply", "-R"], input=diff, cwd=checkout, text=True, check=False).returncode == 0
    assert git_status(checkout) == ""


def test_apply_status_and_revert_tell_what_they_did(ddo, checkout):
    assert "train.py: pristine" in ddo("status", "checkout")
    assert ddo("apply", "checkout").endswith(": patched\n")
    assert "train.py: patched" in ddo("status", "checkout")
    assert "nothing to do" in ddo("apply", "checkout")
    assert "DDO's lines are removed" in ddo("revert", "checkout")
    assert "nothing to do" in ddo("revert", "checkout")
    assert git_status(checkout) == ""


def test_one_conflicting_file_keeps_all_others_unpatched(ddo, checkout):
    inner = checkout / "pkg/inner.py"
    inner.write_text(inner.read_text().replace('state = "pristine"', 'state = "mine"'))
    message = ddo("apply", "checkout", status=2)
    assert message.count("\n") == 1
    assert "pkg/inner.py cannot be patched: it is another version" in message
    assert git_status(checkout) == " M pkg/inner.py\n"
    assert "pkg/inner.py: conflicting" in ddo("status", "checkout")
    ddo("run", "checkout", status=2)


def test_a_missing_file_is_told(ddo, checkout):
    (checkout / "train.py").unlink()
    assert "train.py cannot be patched: No such file" in ddo("apply", "checkout", status=2)


def test_a_folder_and_a_file_behind_links_are_patched_where_they_lie(ddo, checkout, tmp_path):
    (checkout / "helper.py").rename(checkout / "real.py")
    (checkout / "helper.py").symlink_to("real.py")
    (tmp_path / "link").symlink_to(checkout)
    ddo("apply", "link")
    assert (checkout / "helper.py").is_symlink()
    assert (checkout / "real.py").read_text() == PATCHED["helper.py"]


def test_a_file_linked_from_elsewhere_is_not_changed_but_runs(ddo, checkout, tmp_path):
    (checkout / "helper.py").rename(tmp_path / "site/shared.py")
    (checkout / "helper.py").symlink_to(tmp_path / "site/shared.py")
    assert "behind a symbolic link" in ddo("apply", "checkout", status=2)
    assert (tmp_path / "site/shared.py").read_text() == HELPER
    assert (checkout / "train.py").read_text() == TRAIN


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and modification time of every file below a folder, git's own included."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_killed_apply_is_told_by_doctor_and_status_used_by_run_and_finished_by_apply(ddo, checkout):
    for commands in (("status", "run", "apply"), ("doctor", "apply")):
        subprocess.run(["git", "-C", str(checkout), "checkout", "-q", "."], check=True)
        killed = (
            "import sys, os; from pathlib import Path; from ddo_plugin.cli import main\n"
            "left = [3]\n"  # the journal, the first file, and the kill before the second
            "def hook(event, arguments):\n"
            "    if event == 'os.rename':\n"
            "        left[0] -= 1\n"
            "        if not left[0]: os.kill(os.getpid(), 9)\n"
            "sys.addaudithook(hook)\n"
            "main(['apply', 'checkout'])\n"
        )
        subprocess.run([sys.executable, "-B", "-c", killed], cwd=checkout.parent, check=False, env={**os.environ})
        assert len(git_status(checkout).split()) > 2  # one file of three, the journal and what is to come
        for command in commands:
            before = snapshot(checkout)
            said = ddo(command, "checkout")
            if command != "apply":
                assert snapshot(checkout) == before, f"{command} changed the checkout"
            if command in ("status", "doctor"):
                assert "was interrupted" in said
                assert "patched" in said
        assert git_status(checkout) == " M helper.py\n M pkg/inner.py\n M train.py\n"
