"""Our utilities beside upstream's `dnnlib`: the same inputs, the same values, the same cache."""

from __future__ import annotations

import functools
import http.server
import json
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import processes

CHECKOUTS = ["edm", "edm2"]

# Run in a process of its own, once with upstream's `dnnlib` and once with ours.
PROBE = """
import copy, json, pickle, sys
which, folders = sys.argv[1], sys.argv[2:]
sys.path[:0] = folders
if which == "ours":
    from ddo_integrations.nvlabs import objects as util
else:
    import dnnlib, dnnlib.util as util
    util.EasyDict = dnnlib.EasyDict

def outcome(f, *args, **kwargs):
    try:
        return repr(f(*args, **kwargs))
    except BaseException as error:
        return "raises " + type(error).__name__

names = '''
    math math.pi np.linalg.norm numpy.float32 np.random.RandomState collections.OrderedDict.fromkeys os.path.join
    json.decoder.JSONDecoder.decode builtins.dict
    absent absent.thing absent.a.b math.absent math.absent.deeper numpy.absent numpy.absent.deeper os.path.absent
    house house.room house.room.door house.room.Door.Knob house.room.absent house.absent house.absent.deeper
    house.room.door.absent house.shadow.attribute house.shadow.absent house.needs_another.thing house.needs_another
    house.raises.thing house.syntax.thing house.exits_early.thing
    house.raises_but_shadowed.attribute
'''.split()
report = {name: outcome(util.get_obj_by_name, name).split(" at 0x")[0] for name in names}
report["call"] = outcome(util.call_func_by_name, 2, 5, func_name="math.pow")
report["call with keywords"] = outcome(util.call_func_by_name, [3, 1], func_name="builtins.sorted", reverse=True)
report["call what raises"] = outcome(util.call_func_by_name, -1, func_name="math.sqrt")
report["construct"] = outcome(util.construct_class_by_name, 1, 2, class_name="house.room.Box", c=3)
report["construct nested"] = outcome(util.construct_class_by_name, class_name="house.room.Door.Knob")
report["construct absent"] = outcome(util.construct_class_by_name, class_name="house.room.Absent")

d = util.EasyDict(a=1, b=util.EasyDict(c=[2]))
d.e = d.b.c
del d.a
report["items"] = repr(sorted(d.items()))
report["is a dict"] = repr(isinstance(d, dict))
report["json"] = json.dumps(d)
report["splat"] = repr(dict(**d))
report["absent item"] = outcome(getattr, d, "absent")
report["absent item, default"] = outcome(getattr, d, "absent", 7)
for way in (lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy):
    twin = way(d)
    report[f"twin {len(report)}"] = repr((type(twin) is type(d), twin == d, twin.b.c, type(twin.b) is type(d)))
print(json.dumps(report))
"""

HOUSE = {
    "__init__.py": """
        from house.shadow import shadow
        class raises_but_shadowed:
            attribute = "of the class that has the name of a broken module"
    """,
    "room.py": """
        door = "a door"
        class Door:
            class Knob:
                def __repr__(self): return "Knob()"
        class Box:
            def __init__(self, a, b, c): self.all = a, b, c
            def __repr__(self): return f"Box{self.all}"
    """,
    "shadow.py": """
        class shadow:
            attribute = "of the class that has its module's name"
    """,
    "needs_another.py": "import surely_not_installed",
    "raises.py": "raise RuntimeError('no device')",
    "raises_but_shadowed.py": "raise RuntimeError('no device')",
    "syntax.py": "def",
    "exits_early.py": "raise ImportError('wrong version')",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that has every trouble a name can lead into."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "house").mkdir()
    for name, code in HOUSE.items():
        (folder / "house" / name).write_text(textwrap.dedent(code))
    return folder


def run_python(code: str, *arguments: object) -> str:
    result = processes.run_python(["-c", code, *arguments])
    if "No module named 'distutils'" in result.stderr:
        pytest.skip("this checkout's dnnlib needs distutils, which this Python lacks")
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def our_report(house: Path) -> dict[str, str]:
    return json.loads(run_python(PROBE, "ours", house))


@pytest.mark.parametrize("name", CHECKOUTS)
def test_the_same_inputs_give_the_same_values(
    name: str, checkout: Callable[[str], Path], house: Path, our_report: dict[str, str]
) -> None:
    assert our_report == json.loads(run_python(PROBE, "upstream", checkout(name), house))


@pytest.mark.parametrize("name", CHECKOUTS)
def test_with_a_checkout_on_the_path_dnnlib_is_upstreams(name: str, checkout: Callable[[str], Path]) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from ddo_integrations.nvlabs import dnnlib as ours
import dnnlib as theirs
print(ours.EasyDict is theirs.EasyDict, ours.construct_class_by_name is theirs.util.construct_class_by_name,
      ours.get_obj_by_name is theirs.util.get_obj_by_name, ours.open_url.__module__)
"""
    assert run_python(code, checkout(name)).split() == ["True", "True", "True", "ddo_plugin.base.download"]


@pytest.mark.parametrize("name", CHECKOUTS)
def test_in_upstreams_process_our_easydict_pickles_without_this_package(
    name: str, checkout: Callable[[str], Path], tmp_path: Path
) -> None:
    write = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from ddo_integrations.nvlabs.dnnlib import EasyDict
pickle.dump(EasyDict(a=1), open(sys.argv[2], "wb"))
"""
    read = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
sys.modules["ddo_plugin"] = None
print(pickle.load(open(sys.argv[2], "rb")).a)
"""
    run_python(write, checkout(name), tmp_path / "file.pkl")
    assert run_python(read, checkout(name), tmp_path / "file.pkl").strip() == "1"


# -- one cache for both -----------------------------------------------------------------------------------------------

OPEN_OURS = """
import sys
from ddo_plugin.base.download import open_url
print(len(open_url(sys.argv[2], verbose=False).read()))
"""
OPEN_THEIRS = """
import sys
sys.path.insert(0, sys.argv[1])
import dnnlib
print(len(dnnlib.util.open_url(sys.argv[2], verbose=False).read()))
"""


class Server(http.server.ThreadingHTTPServer):
    """Serves one file under any path; counts who asks."""

    daemon_threads = True

    def __init__(self, handler: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.asked = 0
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/some/network-α.pkl?x=1".replace("α", "%CE%B1")


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        for name, value in ({"Content-Length": "9000"} | self.server.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(bytes(9000))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(Handler) as served:
        thread = threading.Thread(target=functools.partial(served.serve_forever, poll_interval=0.01))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.mark.parametrize("headers", [{}, {"Content-Disposition": 'attachment; filename="other name.pkl"'}])
@pytest.mark.parametrize(
    "order", [(OPEN_OURS, OPEN_THEIRS), (OPEN_THEIRS, OPEN_OURS)], ids=["ours-first", "theirs-first"]
)
@pytest.mark.parametrize("name", CHECKOUTS)
def test_a_file_fetched_by_either_is_there_for_both(
    name: str,
    order: tuple[str, str],
    headers: dict[str, str],
    checkout: Callable[[str], Path],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    server.headers = headers
    for code in order:
        assert run_python(code, checkout(name), server.url).strip() == "9000"
    assert server.asked == 1
