"""Objects by dotted name and attribute dictionaries; that upstream's do the same stands in upstream/test_dnnlib.py."""

from __future__ import annotations

import collections
import copy
import math
import pickle
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ddo_integrations.nvlabs.objects import EasyDict, call_func_by_name, construct_class_by_name, get_obj_by_name
from tests import processes


def test_an_easydict_is_a_dict_whose_items_are_attributes() -> None:
    d = EasyDict(a=1)
    d.b = 2
    d["c"] = 3
    assert d == {"a": 1, "b": 2, "c": 3}
    assert (d.a, d["b"], d.c) == (1, 2, 3)
    del d.a
    assert "a" not in d
    assert not hasattr(d, "a")


def test_a_missing_item_is_a_missing_attribute_and_the_message_lists_the_others() -> None:
    with pytest.raises(AttributeError, match="no item 'lr'; there are 'batch', 'seed'"):
        _ = EasyDict(batch=1, seed=2).lr
    with pytest.raises(AttributeError, match="no item 'lr'"):
        del EasyDict().lr


def test_an_easydict_survives_pickling_and_copying() -> None:
    d = EasyDict(a=EasyDict(b=[1]))
    for twin in (pickle.loads(pickle.dumps(d)), copy.deepcopy(d), copy.copy(d)):
        assert type(twin) is EasyDict
        assert twin.a.b == [1]
    assert copy.deepcopy(d).a.b is not d.a.b


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("math", math),
        ("math.pi", math.pi),
        ("collections.abc.Mapping.get", collections.abc.Mapping.get),
        ("np.linalg.norm", np.linalg.norm),
        ("builtins.dict.fromkeys", dict.fromkeys),
    ],
)
def test_a_dotted_name_leads_through_modules_and_then_attributes(name: str, expected: object) -> None:
    assert get_obj_by_name(name) == expected


def test_functions_and_classes_are_called_by_name_or_as_they_are() -> None:
    assert call_func_by_name(2, 5, func_name="math.pow") == call_func_by_name(2, 5, func_name=math.pow) == 32
    assert construct_class_by_name([1], maxlen=1, class_name="collections.deque") == collections.deque([1], maxlen=1)
    with pytest.raises(TypeError, match=r"math\.pi is a float, not a function"):
        call_func_by_name(func_name="math.pi")


def test_a_module_whose_import_fails_is_not_mistaken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_another.py").write_text("import surely_not_installed\n")
    (tmp_path / "raises.py").write_text("raise RuntimeError('no such device')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        get_obj_by_name("needs_another.Network")
    with pytest.raises(RuntimeError, match="no such device"):
        get_obj_by_name("raises.Network")


def test_a_missing_attribute_names_itself_and_its_owner() -> None:
    with pytest.raises(AttributeError, match=r"module 'math'.* has no 'tau_squared', looked for 'math.tau_squared'"):
        get_obj_by_name("math.tau_squared")


def run_python(code: str, *path: Path) -> list[str]:
    prologue = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n"
    result = processes.run_python(["-c", prologue + textwrap.dedent(code)])
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


WHOSE = """
    from ddo_integrations.nvlabs import dnnlib
    names = ("EasyDict", "call_func_by_name", "construct_class_by_name", "get_obj_by_name", "open_url")
    print(*(getattr(dnnlib, name).__module__ for name in names))
"""


def test_without_a_checkout_dnnlib_is_ours() -> None:
    assert run_python(WHOSE) == ["ddo_integrations.nvlabs.objects"] * 4 + ["ddo_plugin.base.download"]


def test_a_dnnlib_that_cannot_be_imported_or_is_another_one_gives_way_to_ours(tmp_path: Path) -> None:
    for name, contents in {"broken": "import surely_not_installed", "other": "version = 1"}.items():
        package = tmp_path / name / "dnnlib"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(contents)
        assert run_python(WHOSE, tmp_path / name) == ["ddo_integrations.nvlabs.objects"] * 4 + [
            "ddo_plugin.base.download"
        ]
