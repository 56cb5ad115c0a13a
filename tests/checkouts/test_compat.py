"""Each fix beside the same code without it, in processes of their own; on the real upstreams: tests/upstream/."""

from __future__ import annotations

import json
import os
import pickletools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.processes import run_python

# Older ones lack nothing there.
LATER_SAMPLER = pytest.mark.skipif(torch.__version__ < "2.10", reason="torch's Sampler takes a data source")
LATER_LOAD = pytest.mark.skipif(torch.__version__ < "2.6", reason="torch.load reads whole pickles")
LATER_NUMPY = pytest.mark.skipif(np.__version__ < "2", reason="numpy 1 calls its modules as numpy 1 does")
CPU_SCALER = pytest.mark.skipif(torch.__version__ < "2.3", reason="torch cannot scale gradients on a CPU")

# A checkout in the manner of the upstreams: what names the GPU, and what stores and loads.
CHECKOUT = {
    "dnnlib/__init__.py": "",
    "torch_utils/__init__.py": "",
    "torch_utils/training_stats.py": """
        def init_multiprocessing(rank, sync_device):
            global device
            device = sync_device
    """,
    "training/__init__.py": "",
    "training/states.py": """
        import pickle
        import dnnlib
        import torch

        class State:
            pass

        def load(path, **options):
            return torch.load(path, **options)

        def dump(what, path, *protocol):
            with open(path, "wb") as file:
                pickle.dump(what, file, *protocol)
    """,
    "training/loop.py": """
        import torch

        def loop(device=torch.device("cuda")):
            return device

        def keyword(*, device=torch.device("cuda"), seed=0):
            return device
    """,
}
# One in the manner of VAR, in a folder of its own.
VAR = {
    "var/trainer.py": "",
    "var/models/var.py": "",
    "var/utils/arg_util.py": """
        import subprocess
        import dist

        class Args:
            commit = subprocess.check_output("git rev-parse HEAD", shell=True).decode() or "unknown"
    """,
    "var/dist.py": """
        import torch
        import torch.distributed as tdist
        __rank, __local_rank, __world_size, __initialized = 0, 0, 1, False
        __device = "cuda" if torch.cuda.is_available() else "cpu"

        def facts():
            return [__device, __rank, __local_rank, __world_size, __initialized]

        def initialize():
            if not torch.cuda.is_available():
                return
            raise RuntimeError("a GPU was found")

        def meet(number):
            t = torch.tensor([number], device="cuda")
            tdist.barrier()
            tdist.all_reduce(t.cuda())
            return t.item()
    """,
}
# What a script of an upstream starts with.
START = "from ddo_plugin.checkouts import compat\ncompat.apply()\n"
# A torch that finds a GPU.
WITH_GPU = "import torch\ntorch.cuda.is_available = lambda: True\n"
# A python that has no distutils but what stands in for it, whatever the real one has and whoever else supplies it.
NO_DISTUTILS = """
import sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        stand_ins = [folder for folder in sys.path if folder.endswith("stand_ins")]
        return PathFinder.find_spec(name, stand_ins if name == "distutils" else path, target)

others = [one for one in sys.meta_path if one is not PathFinder and "hack" not in type(one).__module__]
sys.meta_path[:] = [*others, Finder]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in {**CHECKOUT, **VAR}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(checkout: Path) -> Run:
    """A function: code of a script in the checkout, and environment variables -> what became of it."""

    def start(code: str, **env: str) -> subprocess.CompletedProcess[str]:
        (checkout / "script.py").write_text(code)
        others = {name: value for name, value in os.environ.items() if not name.startswith("DDO_")}
        return run_python(["script.py"], cwd=checkout, env=others | env)

    return start


@pytest.fixture
def run_anew(checkout: Path) -> Run:
    """Like `run`, in a process that has imported nothing yet."""

    def start(code: str, **env: str) -> subprocess.CompletedProcess[str]:
        (checkout / "script.py").write_text(code)
        command = [sys.executable, "script.py"]
        return subprocess.run(
            command, cwd=checkout, env=os.environ | env, capture_output=True, text=True, check=False, timeout=120
        )

    return start


@pytest.fixture
def value(run: Run) -> Callable[..., Any]:
    """A function like `run`, for a script that prints JSON in the end."""

    def of(code: str, **env: str) -> Any:
        done = run(code, **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return of


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a traceback."""
    assert done.returncode != 0, done.stdout
    return done.stderr.strip().splitlines()[-1]


# -- one by one -------------------------------------------------------------------------------------------------------


@LATER_SAMPLER
def test_a_sampler_may_hand_its_data_source_to_torch(run, value):
    code = f"""{START}
from torch.utils.data import Sampler
class Endless(Sampler):
    def __init__(self, data):
        super().__init__(data)
Endless([1]), Sampler()
print(1)
"""
    assert value(code) == 1
    assert "TypeError" in error(run(code, DDO_COMPAT_OFF="sampler"))


SAVE = """
import torch
from training.states import State, load
for name in ("training-state-000001.pt", "network.pt"):
    torch.save({"net": State()}, name)
"""


@LATER_LOAD
def test_the_checkouts_code_reads_its_own_training_state(run, value):
    code = f"{START}{SAVE}\nload('training-state-000001.pt')\nprint(1)"
    assert value(code) == 1
    assert "UnpicklingError" in run(code, DDO_COMPAT_OFF="weights-only").stderr


@LATER_LOAD
@pytest.mark.parametrize(
    "load",
    ["load('network.pt')", "load('training-state-000001.pt', weights_only=True)", "load(open('network.pt', 'rb'))"],
)
def test_nothing_else_is_read_whole(run, load):
    assert "UnpicklingError" in run(f"{START}{SAVE}\n{load}").stderr


@LATER_LOAD
def test_nobody_else_reads_a_training_state_whole(run, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "stranger.py").write_text("import torch\ndef load(path):\n    return torch.load(path)\n")
    code = f"{START}{SAVE}\nimport sys\nsys.path.append({str(elsewhere)!r})\nimport stranger\n"
    assert "UnpicklingError" in run(f"{code}stranger.load('training-state-000001.pt')").stderr


LATER_SCIPY = """
import numpy as np, scipy.linalg
earlier = scipy.linalg.sqrtm
scipy.linalg.sqrtm = lambda A: earlier(A)
"""
ROOT = """
A = np.array([[2.0, 1.0], [1.0, 3.0]])
root, relative_error = scipy.linalg.sqrtm(A, disp=False)
print([int(np.abs(root @ root - A).max() < 1e-12 and relative_error < 1e-12), scipy.linalg.sqrtm(A).ndim])
"""


def test_sqrtm_takes_disp_over_a_scipy_that_does_not(run, value):
    pytest.importorskip("scipy")
    assert value(f"{LATER_SCIPY}{START}{ROOT}") == [1, 2]
    assert "TypeError" in error(run(f"{LATER_SCIPY}{START}{ROOT}", DDO_COMPAT_OFF="sqrtm"))


def test_sqrtm_is_left_alone_where_it_takes_disp(value):
    pytest.importorskip("scipy")
    code = "import scipy.linalg\nscipy.linalg.sqrtm = f = lambda A, disp=True: 0\n"
    assert value(f"{code}{START}print(int(scipy.linalg.sqrtm is f))") == 1


def test_distutils_is_there_when_inject_is_imported_before_upstream(run_anew):
    code = f"{NO_DISTUTILS}\nfrom ddo_plugin import inject\nfrom distutils.util import strtobool\n"
    code += "print(int('torch' in sys.modules or 'numpy' in sys.modules), *map(strtobool, ('Yes', 'off')))"
    assert run_anew(code).stdout == "0 1 0\n"
    for off in ("distutils", "all", "sampler,distutils"):
        assert error(run_anew(code, DDO_COMPAT_OFF=off)) == "ModuleNotFoundError: No module named 'distutils'"
    assert "neither yes nor no: 'maybe'" in error(run_anew(f"{code}\nstrtobool('maybe')"))


def test_spawned_workers_have_distutils_too(run_anew):
    code = f"""{NO_DISTUTILS}
from ddo_plugin import inject
from distutils.util import strtobool
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(strtobool, ["yes"]))
"""
    assert run_anew(code).stdout == "[1]\n"


ARRAYS = """
import pickle, warnings
import numpy as np
warnings.simplefilter("error")
from training.states import dump
dump({"array": np.arange(6.0).reshape(2, 3), "scalar": np.float64(3), "type": np.dtype("f4")}, "by checkout")
dump({"array": np.arange(6.0), "scalar": np.int64(3)}, "by checkout, protocol 2", 2)
print(1)
"""


def modules_named(path: Path) -> set[str]:
    """The modules of numpy that a pickle names."""
    named = set()
    for opcode, argument, _ in pickletools.genops(path.read_bytes()):
        if opcode.name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE") and str(argument).startswith("numpy"):
            named.add(argument.split()[0])
    return named


@LATER_NUMPY
def test_pickles_of_the_checkout_name_numpys_modules_as_numpy_1_knows_them(checkout, value):
    names = {"numpy", "numpy.core.multiarray"}
    assert value(START + ARRAYS) == 1
    assert modules_named(checkout / "by checkout") == names
    assert modules_named(checkout / "by checkout, protocol 2") == names
    assert value(START + ARRAYS, DDO_COMPAT_OFF="numpy-pickles") == 1
    assert "numpy._core.multiarray" in modules_named(checkout / "by checkout")


@LATER_NUMPY
def test_pickles_of_everybody_else_stay_as_numpy_writes_them(tmp_path_factory, run):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "stranger.py").write_text("import pickle\ndef dump(*what):\n    pickle.dump(*what)\n")
    code = f"{START}{ARRAYS}\nimport sys\nsys.path.append({str(elsewhere)!r})\nimport stranger\n"
    code += f"with open({str(elsewhere / 'file')!r}, 'wb') as file:\n    stranger.dump(np.zeros(2), file)"
    assert run(code).stderr == ""
    assert "numpy._core.multiarray" in modules_named(elsewhere / "file")


@LATER_NUMPY
def test_they_hold_the_same_values_and_numpys_functions_keep_their_names(value):
    code = f"""{START}{ARRAYS}
read = pickle.load(open("by checkout", "rb"))
assert (read["array"] == np.arange(6.0).reshape(2, 3)).all() and read["scalar"] == 3 and read["type"] == "f4"
print(int(np.zeros(0).__reduce__()[0].__module__.startswith("numpy._core")))
"""
    assert value(code) == 1


# -- CPU mode ---------------------------------------------------------------------------------------------------------

DEVICES = """
import click, dnnlib, torch
from torch.nn.parallel import DistributedDataParallel
from torch_utils import training_stats
from training.loop import keyword, loop

@click.group()
def group():
    pass

@group.command()
def command(device=torch.device("cuda")):
    torch.distributed.init_process_group("nccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.cuda.set_device(0)
    training_stats.init_multiprocessing(rank=0, sync_device=torch.device("cuda"))
    ddp = DistributedDataParallel(torch.nn.Linear(1, 1), device_ids=[loop()])
    seed = torch.randint(1 << 31, size=[], device=torch.device("cuda"))
    torch.cuda.reset_peak_memory_stats()
    memory = torch.cuda.max_memory_allocated(loop()) + torch.cuda.max_memory_reserved(loop())
    devices = [device, loop(), keyword(), training_stats.device, ddp(torch.ones(1, 1)).device, seed.device]
    print('["' + '", "'.join(map(str, devices)) + f'", {memory}]')
    torch.distributed.destroy_process_group()

if __name__ == "__main__":
    group(["command"])
"""


def test_a_script_that_asks_for_a_gpu_everywhere_runs_on_the_cpu(run, value):
    assert value(START + DEVICES, DDO_DEVICE="cpu") == ["cpu"] * 6 + [0]
    assert run(START + DEVICES, DDO_DEVICE="cpu", DDO_COMPAT_OFF="cpu").returncode != 0


def test_it_does_so_when_the_fixes_come_last_as_in_a_patched_script(value):
    late = DEVICES.replace(
        "    torch.distributed.init",
        "    from ddo_plugin.checkouts import compat\n    compat.apply()\n    torch.distributed.init",
        1,
    )
    late = late.replace("= [device, ", "= [")  # bound before the fixes; upstream's training scripts have none there
    assert value(late, DDO_DEVICE="cpu") == ["cpu"] * 5 + [0]


def test_a_run_on_the_cpu_says_so(run):
    assert "ddo: running on the CPU (DDO_DEVICE=cpu)\n" in run(START + DEVICES, DDO_DEVICE="cpu").stderr


ON_PATH = "import sys\nsys.path.insert(0, 'var')\n"
IN_VAR = """
import dist, json
dist.initialize()
print(json.dumps([*dist.facts(), dist.meet(5)]))
"""
ALONE = {"DDO_DEVICE": "cpu"}
RANK = {**ALONE, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}


@pytest.mark.parametrize("start", [START, f"import dist\n{START}"], ids=["before dist", "after dist"])
def test_var_runs_on_the_cpu_whenever_the_fixes_come(start, value):
    code = WITH_GPU + ON_PATH + start + IN_VAR
    assert value(code, **ALONE) == ["cpu", 0, 0, 1, False, 5]
    assert value(code, **RANK) == ["cpu", 0, 0, 1, True, 5]


def test_var_runs_alone_only_with_its_fixes(run):
    assert "Default process group" in error(run(ON_PATH + START + IN_VAR, **ALONE, DDO_COMPAT_OFF="no-group"))
    assert "a GPU was found" in run(WITH_GPU + ON_PATH + START + IN_VAR, DDO_COMPAT_OFF="cpu").stderr


def test_ranks_of_var_that_cannot_meet_are_told_so(run):
    process = run(ON_PATH + START + IN_VAR, **ALONE, RANK="7")
    assert "UserError: rank 7 cannot join the others: " in error(process)
    assert "WORLD_SIZE" in error(process)


def test_what_var_must_not_ask_of_the_process_others_may(value):
    code = f"""{WITH_GPU}{ON_PATH}{START}import dist
found = [torch.cuda.is_available()]
for call in (lambda: torch.tensor(1, device="cuda"), lambda: torch.ones(1).cuda(), torch.distributed.barrier):
    try:
        found.append(str(call()))
    except (AssertionError, RuntimeError, ValueError):
        found.append("raised")
import json; print(json.dumps(found))
"""
    assert value(code, **ALONE) == [True, "raised", "raised", "raised"]


AMP = """
import json, torch
layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
with torch.autocast("cuda", dtype=torch.bfloat16):
    found = [str(layer(x).dtype)]
    with torch.cuda.amp.autocast(enabled=False):
        found.append(str(layer(x).dtype))
print(json.dumps([*found, torch.cuda.amp.GradScaler(init_scale=2.0).scale(torch.ones(())).item()]))
"""


@CPU_SCALER
def test_mixed_precision_asked_of_a_gpu_is_mixed_on_the_cpu(run, value):
    assert value(START + AMP, **ALONE) == ["torch.bfloat16", "torch.float32", 2.0]
    code = "import torch\ndel torch.amp.GradScaler\n" + START + AMP
    assert "cannot scale gradients on a CPU" in error(run(code, **ALONE))


def test_var_imports_outside_of_git(run, value):
    code = f"{ON_PATH}{START}from utils.arg_util import Args\nimport json; print(json.dumps(Args.commit))"
    outside = {"GIT_CEILING_DIRECTORIES": "/", "GIT_DIR": "nowhere"}
    assert value(code, **outside) == "unknown"
    assert "CalledProcessError" in error(run(code, **outside, DDO_COMPAT_OFF="git"))
    code += "\nimport subprocess; subprocess.check_output('git rev-parse HEAD', shell=True)"
    assert "CalledProcessError" in error(run(code, **outside))


PARTS = """
import click, dnnlib, torch, torch.distributed
from torch.nn.parallel import DistributedDataParallel
def parts():
    return [torch.cuda.set_device, torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved,
            torch.cuda.reset_peak_memory_stats, torch.distributed.init_process_group,
            DistributedDataParallel.__init__, torch.randint, click.Command.main, torch.cuda.is_available,
            torch.Tensor.cuda, torch.tensor, torch.autocast.__init__, torch.cuda.amp.GradScaler]
before = parts()
import training.loop
"""
COMPARE = """
import json
changed = sum(a is not b for a, b in zip(before, parts()))
print(json.dumps([changed, str(training.loop.loop()), compat.active()]))
"""


def test_with_a_gpu_nothing_of_cpu_mode_is_active(value):
    changed, device, active = value(WITH_GPU + PARTS + START + COMPARE)
    assert (changed, device) == (0, "cuda")
    assert "cpu" not in active
    assert "no-group" in active


def test_with_a_gpu_the_cpu_can_be_asked_for_and_without_one_forbidden(value):
    code = PARTS + START + COMPARE
    assert value(WITH_GPU + code, DDO_DEVICE="cpu")[:2] == [13, "cpu"]
    assert value(code, DDO_DEVICE="cuda")[:2] == [0, "cuda"]


# -- what the user sets -----------------------------------------------------------------------------------------------


def test_off_leaves_out_what_it_names_and_all_leaves_out_all(value):
    code = f"{START}import json; print(json.dumps(compat.active()))"
    everything = value(code, DDO_DEVICE="cpu")
    assert {"no-group", "git", "cpu", "cpu-var"} <= set(everything)
    assert value(code, DDO_DEVICE="cpu", DDO_COMPAT_OFF=" git, cpu,") == [
        name for name in everything if name not in ("git", "cpu", "cpu-var")
    ]
    assert value(code, DDO_COMPAT_OFF="all") == []


def test_a_second_call_changes_nothing(value):
    code = f"{START}import torch\nload = torch.load\nprint(len(compat.apply()) + int(load is not torch.load))"
    assert value(code) == 0


@pytest.mark.parametrize(
    ("variable", "wrong", "told"),
    [
        ("DDO_COMPAT_OFF", "samplers", "DDO_COMPAT_OFF=samplers: no fix is named 'samplers'; did you mean 'sampler'?"),
        ("DDO_DEVICE", "gpu", "DDO_DEVICE=gpu: unknown device"),
    ],
)
def test_a_wrong_value_is_one_line_and_status_2(checkout, variable, wrong, told):
    (checkout / "train.py").write_text("raise SystemExit('it ran')")
    command = [sys.executable, "-m", "ddo_plugin.checkouts.compat", "train.py"]
    env = os.environ | {variable: wrong}
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


# -- python -m ddo_plugin.checkouts.compat SCRIPT ---------------------------------------------------------------------


def test_a_script_runs_as_python_runs_it(checkout, tmp_path_factory):
    (checkout / "tool.py").write_text(
        "import json, os, sys, dnnlib, torch.utils.data\n"
        "facts = [sys.argv, __name__, __file__, os.getcwd(), sys.path[0], dnnlib.__file__]\n"
        "print(json.dumps(facts))\n"
        "torch.utils.data.Sampler([1])\n"
        "sys.exit(7)\n"
    )
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    script = str(checkout / "tool.py")
    for options in ([], ["-P"] if sys.version_info >= (3, 11) else []):
        command = [sys.executable, *options, "-m", "ddo_plugin.checkouts.compat", script, "--a", "b"]
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
        assert done.returncode == 7, done.stderr
        facts = [[script, "--a", "b"], "__main__", script, str(elsewhere), str(checkout)]
        assert json.loads(done.stdout) == [*facts, str(checkout / "dnnlib/__init__.py")]


@pytest.mark.parametrize(("arguments", "told"), [([], "no script given"), (["none.py"], "none.py: no such file")])
def test_without_a_script_it_says_how_it_is_called(tmp_path, arguments, told):
    command = [sys.executable, "-m", "ddo_plugin.checkouts.compat", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert told in done.stderr
