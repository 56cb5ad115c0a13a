"""What compat and the reader of pickles must know of an upstream, a plugin declares, ours as well as a stranger's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts import compat
from ddo_plugin.checkouts.compat import ownership
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Family, Fix, Upstream
from ddo_plugin.snapshots.pickles.contents import network_classes

FAMILY = Family("theirs", ("theirs.py", "nets"))
FIX = Fix("mine", breaks="it breaks", does="it works", needed=lambda: True, apply=lambda: None)
FOURTH = Upstream(
    "fourth",
    "a fourth upstream",
    "train.py",
    family=FAMILY,
    compat=("cpu",),
    fixes=(FIX,),
    network_classes={"Net": "nets.net"},
)


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    monkeypatch.setattr(plugins, "upstreams", lambda: [FOURTH])
    ownership.families.cache_clear()
    yield FOURTH
    ownership.families.cache_clear()


def test_a_fix_of_its_own_is_one_of_all_fixes_and_can_be_left_out(fourth, monkeypatch) -> None:
    assert [fix.name for fix in compat.fixes_of(fourth)] == ["cpu", "mine"]
    assert compat.fixes() == [*compat.BUILT_IN, FIX]
    monkeypatch.setenv(compat.OFF_VARIABLE, "mine")
    assert compat.switched_off() == {"mine"}


def test_its_modules_are_recognised_by_its_family(fourth, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "theirs.py").touch()
    anchor = ModuleType("theirs")
    anchor.__file__ = str(tmp_path / "theirs.py")
    monkeypatch.setitem(sys.modules, "theirs", anchor)
    assert ownership.owns({"__file__": str(tmp_path / "nets/net.py")})
    assert not ownership.owns({"__file__": str(tmp_path.parent / "net.py")})


def test_its_network_classes_are_known(fourth) -> None:
    assert network_classes() == {"Net": "nets.net"}


def test_a_misspelt_fix_is_refused() -> None:
    with pytest.raises(UserError, match=r"no built-in fix is named 'cpus'; use sampler, .*cpu"):
        compat.fixes_of(Upstream("fourth", "a fourth upstream", "train.py", compat=("cpus",)))


def test_our_upstreams_name_fixes_that_exist() -> None:
    assert {"edm", "edm2", "var"} <= {known.name for known in plugins.upstreams() if compat.fixes_of(known)}
