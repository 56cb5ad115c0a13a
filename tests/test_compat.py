"""Each fix in a process of its own, with it and without it, on a small stand-in for a checkout."""

import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin import compat
from ddo_plugin.compat import numpy_pickles

LOOP = """
import pickle
import torch

def load(path, **options):
    return torch.load(path, map_location=torch.device("cpu"), **options)

def save(value, path):
    with open(path, "wb") as file:
        pickle.dump(value, file)

def training_loop(size=3, device=torch.device("cuda"), *, other=torch.device("cuda")):
    return torch.zeros(size, device=device), torch.zeros(size, device=other)
"""
STATISTICS = """
device = None

def init_multiprocessing(rank, sync_device):
    global device
    device = sync_device
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with the packages by which the fixes know upstream's code."""
    for package, name, text in (
        ("dnnlib", "__init__", ""),
        ("torch_utils", "training_stats", STATISTICS),
        ("training", "training_loop", LOOP),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture
def python(checkout):
    """Run code after the fixes, as a script beside the checkout's packages; its output, or its last line of errors."""

    def run(code: str, *, off: str = "", check: bool = True, **variables: str) -> str:
        script = checkout / "script.py"
        script.write_text(code)
        variables = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "DDO_COMPAT_OFF": off, **variables}
        done = subprocess.run(
            [sys.executable, "-m", "ddo_plugin.compat", str(script)],
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
            cwd=checkout,
        )
        assert (done.returncode == 0) == check, done.stderr
        return done.stdout if check else done.stderr.splitlines()[-1]

    return run


def needs(name: str) -> None:
    if not next(fix for fix in compat.FIXES if fix.name == name).needed():
        pytest.skip(f"this environment does not need the fix {name}")


def test_a_sampler_may_pass_its_dataset_to_torch(python):
    needs("sampler")
    code = """
from torch.utils.data import DataLoader, Sampler
class Endless(Sampler):
    def __init__(self, dataset):
        super().__init__(dataset)
    def __iter__(self):
        yield from (1, 0)
print([int(x) for x in DataLoader([10, 20], sampler=Endless([10, 20]))])
"""
    assert python(code) == "[20, 10]\n"
    assert "TypeError" in python(code, off="sampler", check=False)


STATE = """
import collections, sys, torch
import dnnlib
from training import training_loop
torch.save(collections.UserDict(a=1), "training-state-000001.pt")
torch.save(collections.UserDict(a=1), "network.pt")
"""


LOADS = """
loads = {
    "upstream's own": lambda: training_loop.load("training-state-000001.pt"),
    "another file": lambda: training_loop.load("network.pt"),
    "weights wanted only": lambda: training_loop.load("training-state-000001.pt", weights_only=True),
    "an open file": lambda: training_loop.load(open("training-state-000001.pt", "rb")),
    "other code": lambda: eval("torch.load('training-state-000001.pt')", {"torch": torch}),
}
for name, load in loads.items():
    try:
        load()
        print(name)
    except Exception as error:
        assert type(error).__name__ == "UnpicklingError"
"""


def test_the_checkout_resumes_from_its_training_state_and_every_other_load_stays_safe(python):
    needs("weights-only")
    assert python(STATE + LOADS) == "upstream's own\n"
    assert python(STATE + LOADS, off="weights-only") == ""


NEW_SQRTM = """
import numpy as np, scipy.linalg
old = scipy.linalg.sqrtm
scipy.linalg.sqrtm = lambda A: old(A)  # as scipy 1.18 has it
from ddo_plugin import compat
compat.apply()
A = np.array([[4.0, 1.0], [1.0, 3.0]])
root, error = scipy.linalg.sqrtm(A, disp=False)
assert np.allclose(root @ root, A) and error < 1e-12 and np.array_equal(scipy.linalg.sqrtm(A), root)
"""


def test_sqrtm_takes_disp_and_returns_its_error(python):
    pytest.importorskip("scipy")
    python(NEW_SQRTM, off="")
    assert "unexpected keyword argument 'disp'" in python(NEW_SQRTM, off="sqrtm", check=False)


NO_DISTUTILS = """
import sys, sysconfig
from importlib.machinery import PathFinder

class AsInPython312(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "distutils":
            path = [folder for folder in sys.path if folder != sysconfig.get_path("stdlib")]
        return PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [f for f in sys.meta_path if f is not PathFinder and "istutils" not in str(f)] + [AsInPython312]
for name in [name for name in sys.modules if name.partition(".")[0] == "distutils"]:
    del sys.modules[name]
from ddo_plugin import compat
applied = compat.apply()
from distutils.util import strtobool
assert [strtobool(word) for word in ("Yes", "on", "1", "no", "OFF", "f")] == [1, 1, 1, 0, 0, 0]
try:
    strtobool("maybe")
except ValueError:
    print(applied)
"""


def test_distutils_has_a_stand_in_where_python_has_none(python):
    assert "distutils" in python(NO_DISTUTILS)
    assert "No module named 'distutils'" in python(NO_DISTUTILS, off="distutils", check=False)


SAVE = """
import numpy as np, pickle
import dnnlib
from training import training_loop
value = {"array": np.arange(3.0), "scalar": np.sqrt(0.5), "words": np.array(["a", None], dtype=object)}
training_loop.save(value, "upstream.pkl")
with open("other.pkl", "wb") as file:
    exec("pickle.dump(value, file)", {"pickle": pickle, "value": value, "file": file})
"""


def modules_in(path: Path) -> set[str]:
    words = {word for _, word, _ in pickletools.genops(path.read_bytes()) if isinstance(word, str)}
    return {word for word in words if word.startswith("numpy.")}


def test_what_upstream_pickles_names_numpy_as_numpy_1_does(python, checkout):
    needs("numpy-pickles")
    python(SAVE)
    assert modules_in(checkout / "upstream.pkl") == {"numpy.core.multiarray"}
    assert modules_in(checkout / "other.pkl") == {"numpy._core.multiarray"}, "only upstream's writing is changed"
    loaded = pickle.loads((checkout / "upstream.pkl").read_bytes())
    assert np.array_equal(loaded["array"], np.arange(3.0))
    assert loaded["scalar"] == np.sqrt(0.5)
    python(SAVE, off="numpy-pickles")
    assert modules_in(checkout / "upstream.pkl") == {"numpy._core.multiarray"}


def test_numpy_has_its_own_names_back_after_a_failed_write():
    before = [function.__module__ for function in numpy_pickles._constructors()]
    with pytest.raises(RuntimeError), numpy_pickles.old_names():
        raise RuntimeError
    assert [function.__module__ for function in numpy_pickles._constructors()] == before


CPU = """
import click, torch
import dnnlib
from torch_utils import training_stats
from training.training_loop import training_loop

@click.group()
def group(): ...

@group.command()
@click.option("--size", type=int, default=2)
def train(size, device=torch.device("cuda")):
    torch.distributed.init_process_group(backend="nccl", init_method="env://")
    torch.cuda.set_device(0)
    training_stats.init_multiprocessing(rank=0, sync_device=torch.device("cuda"))
    seed = torch.randint(1 << 31, size=[], device=torch.device("cuda"))
    torch.distributed.broadcast(seed, src=0)
    net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1).to(device), device_ids=[device])
    net(training_loop(2)[0] + training_loop(2)[1]).backward()
    torch.cuda.reset_peak_memory_stats()
    peaks = torch.cuda.max_memory_allocated(device) + torch.cuda.max_memory_reserved(device)
    print(device, training_stats.device, peaks, torch.distributed.get_backend())

if __name__ == "__main__":
    group(["train"])
"""
SINGLE = {"MASTER_ADDR": "localhost", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}


def test_what_asks_for_a_gpu_gets_the_cpu(python):
    assert python(CPU, DDO_DEVICE="cpu", **SINGLE) == "cpu cpu 0 gloo\n"


def test_without_the_cpu_mode_it_fails_where_there_is_no_gpu(python):
    needs("cpu")
    assert "Error" in python(CPU, off="cpu", check=False, **SINGLE)
    assert "Error" in python(CPU, check=False, DDO_DEVICE="cuda", **SINGLE)


UNTOUCHED = """
import click, torch
torch.cuda.is_available = lambda: True
names = ("torch.cuda.set_device", "torch.cuda.max_memory_allocated", "torch.cuda.reset_peak_memory_stats",
    "torch.distributed.init_process_group", "torch.nn.parallel.DistributedDataParallel.__init__", "torch.randint",
    "click.Command.main")
before = [eval(name) for name in names]
import dnnlib
from training.training_loop import training_loop
from ddo_plugin import compat
print("cpu" in compat.apply(), [eval(name) for name in names] == before, training_loop.__defaults__[1])
"""


def test_with_a_gpu_nothing_of_the_cpu_mode_is_active(checkout):
    variables = {name: value for name, value in os.environ.items() if name not in ("DDO_DEVICE", "DDO_COMPAT_OFF")}
    run = [sys.executable, "-c", UNTOUCHED]
    shown = {}
    for wish in ({}, {"DDO_DEVICE": "cpu"}):
        shown[len(wish)] = subprocess.run(
            run, cwd=checkout, env=variables | wish, capture_output=True, text=True
        ).stdout
    assert shown == {0: "False True cuda\n", 1: "True False cpu\n"}


def test_applying_twice_does_nothing_more(python):
    code = "from ddo_plugin import compat\nprint(len(compat.active()) > 0, compat.apply())"
    assert python(code, DDO_DEVICE="cpu") == "True []\n"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("DDO_DEVICE", "tpu", "set it to cpu or cuda"), ("DDO_COMPAT_OFF", "cpu,smpler", "try 'sampler'")],
)
def test_a_wrong_wish_is_refused_in_one_line(python, monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    done = subprocess.run([sys.executable, "-m", "ddo_plugin.compat", __file__], capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_script_finds_its_folder_its_arguments_and_its_name(checkout, tmp_path_factory):
    (checkout / "show.py").write_text("import sys, training\nprint(__name__, sys.argv[1:], sys.path[0] == sys.argv[2])")
    done = subprocess.run(
        [sys.executable, "-m", "ddo_plugin.compat", str(checkout / "show.py"), "--help", str(checkout)],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
    )
    assert done.stdout == f"__main__ ['--help', {str(checkout)!r}] True\n", done.stderr


@pytest.mark.parametrize("arguments", [[], ["absent.py"]])
def test_no_script_is_said_in_one_line(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ddo_plugin.compat", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "usage: python -m ddo_plugin.compat SCRIPT" in done.stderr
    assert done.stderr.count("\n") == 1
