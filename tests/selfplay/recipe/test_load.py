"""Recipes: all problems are reported at once, and a recipe without problems becomes the settings of each round."""

from __future__ import annotations

import sys
import time
from importlib.resources import as_file
from pathlib import Path

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.selfplay.recipe import schema
from ddo_plugin.selfplay.recipe.load import load
from ddo_plugin.selfplay.recipe.plan import Round, Workload
from ddo_plugin.selfplay.recipe.shipped import shipped
from ddo_plugin.selfplay.run import run

DOCS = Path(__file__).parents[3] / "docs/recipes.md"
DIGITS = """title = "digits"
upstream = "digits"
start = "base.safetensors"
rounds = 3

[refset]
count = 10
family = "diffusion"
data = "data"

[training]
family = "diffusion"
data = "data"
steps = 4

[sweep]
alpha = [1, 2]
beta = [0.1, 0.3]

[evaluation]
family = "diffusion"
data = "data"
seeds = [5, 6]
"""
WRONG = """title = "digits"
upstream = "digits"
rounds = 0
sed = 1

[training]
family = "diffusion"
data = "data"
steps = "many"
warmup = 2
warm = 0.5
ddo-alpha = 3
ddo-strict = 1
ddo-pause-after = 2

[sweep]
objective = "dd"
alpha = [
    1,
    -2,
]
bta = [0.1]

[evaluation]
data = "data"
cont = 3

[search]
kind = "gird"
rungs = [2, 1]
keep = 1
evaluation = { count = 1, seeds = 7 }

[policy]
retries = true
keep = -1
stop_on_collapse = 0

[[change]]
from_round = 1
training = { lr = 0 }
refset = 3

[[change]]
sweep = { beta = [] }
"""
FOUND = """1: start: is missing; it must be a path or URL
3: rounds: 0 is not a whole number from 1 to 1,000
4: sed: unknown key; did you mean 'seed'?
9: training.steps: 'many' is not a valid integer range
10: training.warmup: 2.0 is not in the range 0<=x<=1
11: training.warm: unknown option; did you mean 'warmup'?
12: training.ddo-alpha: cannot be set here; self-play sets it from [sweep]
13: training.ddo-strict: 1 is not true or false
14: training.ddo-pause-after: cannot be set here; self-play sets it from search.rungs
16: sweep.beta: is missing; it must be a list of different numbers > 0 or "auto"
17: sweep.objective: no installed plugin offers 'dd'; did you mean 'ddo'?
18: sweep.alpha: [1, -2] is not a list of different numbers >= 0
22: sweep.bta: unknown key; did you mean 'beta'?
24: evaluation.family: is missing; the command requires it
26: evaluation.cont: unknown option; did you mean 'count'?
29: search.kind: 'gird' is not one of grid, adaptive
30: search.rungs: [2, 1] is not an ascending list of whole numbers >= 1
31: search.keep: 1 is not a number between 0 and 1
32: search.evaluation.count: 1 is not in the range x>=2
32: search.evaluation.seeds: cannot be set here; set search.seeds
35: policy.retries: true is not a whole number >= 0
36: policy.keep: -1 is not "best", "all" or a whole number
37: policy.stop_on_collapse: 0 is not a number > 0, or false
40: change[1].from_round: 1 is not a whole number >= 2
41: change[1].training.lr: 0.0 is not in the range x>0
42: change[1].refset: 3 is not a table
44: change[2].from_round: is missing; it must be a whole number >= 2
45: change[2].sweep.beta: [] is not a list of different numbers > 0 or "auto"
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write


def pairs(this: Round) -> list[tuple[float, float]]:
    return [(candidate.alpha, candidate.beta) for candidate in this.candidates]


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as raised:
        load(path, overrides)
    return raised.value.message.splitlines()


def test_everything_that_is_wrong_is_told_at_once_with_lines_and_the_nearest_key(write) -> None:
    path = write(WRONG)
    first, *rest = problems(path)
    assert [line.removeprefix(f"{path}:") for line in rest] == FOUND.splitlines()
    assert first == f"{path}: {len(rest)} problems"


def test_a_misspelt_upstream_is_told_beside_what_is_wrong_with_its_options(write) -> None:
    path = write(DIGITS.replace('"digits"\nstart', '"digit"\nstart').replace("steps", "stepz"))
    assert problems(path)[1:] == [
        f"{path}:2: upstream: no installed plugin knows 'digit'; did you mean 'digits'?",
        f"{path}:11: training.steps: is missing; the command requires it",
        f"{path}:14: training.stepz: unknown option; did you mean 'steps'?",
    ]


def test_overrides_are_checked_too_and_told_as_they_were_typed(write) -> None:
    path = write(DIGITS)
    assert problems(path, "rounds=no", "training.lrr=1")[1:] == [
        "--set rounds=no: rounds: 'no' is not a whole number from 1 to 1,000",
        "--set training.lrr=1: training.lrr: unknown option; did you mean 'lr'?",
    ]


def test_a_candidate_may_choose_its_own_beta(write) -> None:
    path = write(DIGITS)
    candidates = load(path, ['sweep.beta=["auto", 0.1]']).rounds[0].candidates
    assert [str(candidate) for candidate in candidates][:2] == ["ddo α=1 β=auto", "ddo α=1 β=0.1"]
    (line,) = problems(path, 'sweep.beta=["atuo"]')[1:]
    assert line.endswith("sweep.beta: ['atuo'] is not a list of different numbers > 0 or \"auto\"")


def test_an_upstream_with_a_repository_needs_a_checkout(write) -> None:
    text = DIGITS.replace('upstream = "digits"', 'upstream = "edm"')
    assert any("launch.checkout: is missing" in line for line in problems(write(text)))


def test_a_checkout_that_is_not_there_is_noted_and_what_is_known_without_it_is_checked(write) -> None:
    with as_file(shipped()["edm-cifar10-cond"]) as file:
        path = write(file.read_text())
    assert load(path, ["launch.checkout=nowhere"]).notes[0].startswith("the flags of train.py, because the checkout")
    path = write(path.read_text().replace("duration", "ddo-rampup = 'x'\nduratoin").replace("num =", "nun ="))
    told = [line.partition(": ")[2] for line in problems(path, "launch.checkout=nowhere")[1:]]
    assert told == [
        "training.ddo-rampup: 'x' is not a valid float range",
        "evaluation.nun: unknown option; did you mean 'num'?",
    ]


def test_another_upstreams_checkout_is_refused(write, tmp_path: Path) -> None:
    with as_file(shipped()["edm-cifar10-cond"]) as file:
        path = write(file.read_text())
    (tmp_path / "empty").mkdir()
    told = problems(path, f"launch.checkout={tmp_path / 'empty'}", "rounds=0")
    assert len(told) == 3
    assert "is not a checkout of a supported upstream" in told[2]


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_recipe_is_right(name: str) -> None:
    with as_file(shipped()[name]) as file:
        recipe = load(file)
    assert recipe.upstream == name.removeprefix("neon-").split("-")[0]


def test_the_imagenet_64_recipe_changes_after_round_16() -> None:
    with as_file(shipped()["edm2-img64-s"]) as file:
        recipe = load(file)
    before, after = recipe.rounds[15].training, recipe.rounds[16].training
    assert {key for key in before if before[key] != after[key]} == {"ddo-round", "P_std", "lr"}
    assert (before["P_std"], before["lr"], after["P_std"], after["lr"]) == (1.6, 5e-5, 3, 2e-5)
    assert recipe.rounds[23].training["P_std"] == 3


def test_settings_of_a_step_are_options_of_its_command(write, tmp_path: Path) -> None:
    first, second, _ = load(write(DIGITS)).rounds
    assert second.training == {
        "ddo-round": 2,
        "ddo-stop-on-collapse": 2.0,
        "family": "diffusion",
        "data": tmp_path / "data",
        "steps": 4,
    }
    assert first.refset == first.evaluation == {"family": "diffusion", "data": tmp_path / "data"}
    assert (first.refset_count, first.evaluation_seeds) == (10, (5, 6))
    assert pairs(first) == [(1, 0.1), (1, 0.3), (2, 0.1), (2, 0.3)]


def test_changes_build_on_one_another_and_hold_from_their_round_on(write) -> None:
    later = "[[change]]\nfrom_round = 5\nsweep = { alpha = [9] }\n"
    earlier = (
        "[[change]]\nfrom_round = 3\ntraining = { lr = 1.0 }\nrefset = { count = 7 }\nevaluation = { seeds = [1] }\n"
    )
    _, second, third, fourth, fifth = load(write(f"{DIGITS}{later}{earlier}"), ["rounds=5"]).rounds
    assert "lr" not in second.training
    for this in (third, fourth):
        assert (this.training["lr"], this.refset_count, this.evaluation_seeds) == (1, 7, (1,))
    assert (pairs(fifth), fifth.training["lr"]) == ([(9, 0.1), (9, 0.3)], 1)


def test_paths_are_relative_to_the_recipe_and_typed_ones_to_the_current_folder(write, tmp_path, monkeypatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = write(DIGITS.replace('"base.safetensors"', '"https://host/base.safetensors"'))
    recipe = load(path, ["training.data=../typed"])
    assert recipe.start == "https://host/base.safetensors"
    assert recipe.rounds[0].training["data"] == tmp_path / "typed"
    assert recipe.rounds[0].refset["data"] == tmp_path / "data"
    assert load(path, ["start=b"]).start == str(here / "b")


def test_a_search_is_cheaper_in_what_it_says_and_as_the_evaluation_in_the_rest(write, tmp_path: Path) -> None:
    search = '[search]\nkind = "adaptive"\nrungs = [1, 3]\nseeds = [9]\nevaluation = { count = 50, data = "other" }\n'
    third = load(write(DIGITS + search)).rounds[2]
    assert third.search is not None
    assert (third.search.rungs, third.search.evaluation_seeds, third.search.keep) == ((1, 3), (9,), 0.3)
    assert third.search.evaluation == {**third.evaluation, "count": 50, "data": tmp_path / "other"}
    assert third.workload == Workload(candidates=4, trainings=4 + 1.2 + 1, finalists=2)


def test_a_search_without_its_engine_is_told_before_anything_runs(write, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    made = load(write(DIGITS), ["search.kind=adaptive", "search.rungs=[1]"])
    with pytest.raises(UserError, match=r"needs optuna: pip install 'ddo-plugin\[search\]'"):
        run(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_table_refset_no_sets_are_made(write) -> None:
    text = DIGITS[: DIGITS.index("[refset]")] + DIGITS[DIGITS.index("[training]") :]
    first = load(write(text)).rounds[0]
    assert not first.needs_refset
    assert first.refset == {}


def test_the_bound_on_collapse_can_be_taken_away(write) -> None:
    recipe = load(write(DIGITS), ["policy.stop_on_collapse=false"])
    assert recipe.policy.stop_on_collapse is None
    assert "ddo-stop-on-collapse" not in recipe.rounds[0].training


def test_the_docs_have_every_key() -> None:
    docs = DOCS.read_text()
    tables = {**schema.TABLES, **schema.OPTION_TABLES}
    keys = [*schema.TOP, *(f"{table}.{key}" for table, keys in tables.items() for key in keys), "from_round"]
    assert [key for key in keys if f"`{key}`" not in docs] == []


HOSTILE = {
    "string": 'x = """\n' + "aaa\n" * 15_000 + '"""\n',
    "list": "x = [\n" + "1,\n" * 20_000 + "]\n",
    "nested lists": "x = [\n" + "[1],\n" * 5_000 + "]\n",
    "many keys": "".join(f"a{number}=1\n" for number in range(2_000)),
    "long key": "a" * 60_000 + " = 1\n",
    "deep list": "x = " + "[" * 30_000 + "\n",
    "deep key": ".".join("a" * 30_000) + " = 1\n",
    "deep inline key": "x = {" + ".".join("a" * 30_000) + " = 1}\n",
    "large file": "#" * (1 << 20),
    "long number": "rounds = " + "9" * 5_000 + "\n",
    "many rounds": "rounds = 1_000_000_000\n",
    "many slots": "[resources]\nslots = 1_000_000_000\n",
    "open quote": '[launch]\ntorchrun = "\'--standalone"\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_refused_in_seconds(write, name: str) -> None:
    begun = time.process_time()
    assert problems(write(HOSTILE[name]))
    assert time.process_time() - begun < 10  # some took more than 25 s


@pytest.mark.parametrize(
    "fewer", ["[report]\nevaluation = { count = 10 }\n", "[[change]]\nfrom_round = 2\nevaluation = { count = 10 }\n"]
)
def test_seeds_that_select_nothing_repeat_no_image_if_the_numbers_of_samples_differ(tmp_path: Path, fewer: str) -> None:
    def seeds(text: str) -> tuple[int, ...]:
        (tmp_path / "recipe.toml").write_text(text)
        report = load(tmp_path / "recipe.toml").report
        assert report
        return report.evaluation_seeds

    assert seeds(DIGITS) == (7, 8, 9)
    assert min(seeds(f"{DIGITS}\n{fewer}")) > 1000
