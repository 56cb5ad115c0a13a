import os
import signal
import stat
import sys

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.patching.transaction import repair, replace_all

NAMES = ("a.py", "pkg/b.py", "pkg/c.py")
OLD = {name: f"old {name}\n".encode() for name in NAMES}
NEW = {name: f"new {name}\n".encode() for name in NAMES}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DDO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "checkout"
    (folder / "pkg").mkdir(parents=True)
    for name, data in OLD.items():
        (folder / name).write_bytes(data)
    return folder


def paths(root):
    return [root / name for name in NAMES]


def changes(root):
    return {root / name: (OLD[name], NEW[name]) for name in NAMES}


def content(root):
    """Every file below the folder, so that nothing may be left lying about either."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def killed_at(step, work):
    """Run `work` in a process of its own that is killed before its nth change of a file; whether it was."""
    child = os.fork()
    if child == 0:
        left = [step]

        def kill(event, arguments):
            changes_files = event in ("os.rename", "os.remove", "os.chmod", "os.truncate")
            if changes_files or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def killed_everywhere(root, work):
    """Yield once for every step at which `work` can be killed, on a fresh tree."""
    for step in range(1, 200):
        for name, data in OLD.items():
            (root / name).write_bytes(data)
        if not killed_at(step, work):
            assert step > 10
            return
        yield step
    raise AssertionError("it never ends")


def test_all_files_get_their_new_content_and_nothing_is_left_behind(root):
    replace_all(root, changes(root))
    assert content(root) == NEW


def test_after_a_kill_at_any_step_the_next_command_finds_all_files_or_none(root):
    outcomes = []
    for _ in killed_everywhere(root, lambda: replace_all(root, changes(root))):
        repair(root, paths(root))
        outcomes.append(content(root))
        assert outcomes[-1] in (OLD, NEW)
    assert OLD in outcomes
    assert NEW in outcomes


def test_without_the_journal_a_kill_does_leave_half_of_the_files(root):
    def naive():
        for path, (_, new) in changes(root).items():
            path.with_suffix(".tmp").write_bytes(new)
        for path in changes(root):
            path.with_suffix(".tmp").replace(path)

    def half_done():
        found = {name: (root / name).read_bytes() for name in NAMES}
        return found not in (OLD, NEW)

    states = []
    for step in range(1, 12):
        for name, data in OLD.items():
            (root / name).write_bytes(data)
        killed_at(step, naive)
        states.append(half_done())
    assert any(states)


def test_after_a_kill_the_same_change_can_be_made_again(root):
    for _ in killed_everywhere(root, lambda: replace_all(root, changes(root))):
        now = {name: (root / name).read_bytes() for name in NAMES}
        if now == OLD and not (root / ".ddo-journal.json").exists():
            replace_all(root, changes(root))
        repair(root, paths(root))
        assert content(root) in (OLD, NEW)


def test_a_kill_during_the_repair_is_repaired(root):
    for _ in killed_everywhere(root, lambda: replace_all(root, changes(root))):
        for step in range(1, 30):
            if not killed_at(step, lambda: repair(root, paths(root))):
                break
        repair(root, paths(root))
        assert content(root) in (OLD, NEW)


def test_an_edit_made_after_a_kill_is_kept(root):
    for _ in killed_everywhere(root, lambda: replace_all(root, changes(root))):
        (root / "pkg/c.py").write_bytes(b"mine\n")
        repair(root, paths(root))
        assert content(root)["pkg/c.py"] == b"mine\n"
        assert set(content(root)) == set(NAMES)


def test_a_file_that_changed_meanwhile_stops_the_change(root):
    planned = changes(root)
    (root / "pkg/b.py").write_bytes(b"mine\n")
    with pytest.raises(UserError, match=r"pkg/b\.py was changed"):
        replace_all(root, planned)
    assert content(root) == {**OLD, "pkg/b.py": b"mine\n"}


def test_file_modes_are_kept(root):
    (root / "a.py").chmod(0o755)
    (root / "pkg/b.py").chmod(0o444)
    replace_all(root, changes(root))
    modes = [stat.S_IMODE((root / name).stat().st_mode) for name in ("a.py", "pkg/b.py")]
    assert modes == [0o755, 0o444]
