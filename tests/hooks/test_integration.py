"""An integration as an object: the hooks of one upstream, without the question whose upstream a call is about."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import create_autospec

import click
import pytest

from ddo_plugin import Fakes, Integration, Reference, RefsetStep, Upstream, UserError, hookimpl, load_reference
from ddo_plugin.hooks import plugins


class Fourth(Integration):
    upstream = Upstream("fourth", "a fourth upstream", "train.py")

    def options(self):
        return [click.Option(["--ddo-fourth"])]

    def configure(self, config, options):
        config["configured"] = options["ddo"]

    def fakes(self, source, reference, options):
        return "images"

    def refset_command(self, step):
        return "command"

    @hookimpl
    def ddo_features(self, name):
        return name.upper()


@pytest.fixture
def manager() -> plugins.Manager:
    manager = plugins.build([])
    manager.register(Fourth(), "fourth")
    return manager


def step(upstream: str) -> RefsetStep:
    return RefsetStep(upstream, Path("network"), Path("out"), 10, 0)


def test_a_call_about_its_upstream_reaches_the_method(manager) -> None:
    config: dict[str, str] = {}
    assert [option.name for option in plugins.collect(manager.hook.ddo_options(upstream="fourth"))] == ["ddo_fourth"]
    assert manager.hook.ddo_configure(upstream="fourth", config=config, options={"ddo": "network"}) == [True]
    assert config == {"configured": "network"}
    assert manager.hook.ddo_refset_command(step=step("fourth")) == "command"
    assert [upstream.name for upstream in plugins.collect(manager.hook.ddo_upstreams())] == ["fourth"]


def test_a_call_about_another_upstream_does_not(manager) -> None:
    config: dict[str, str] = {}
    assert list(plugins.collect(manager.hook.ddo_options(upstream="fifth"))) == []
    assert manager.hook.ddo_configure(upstream="fifth", config=config, options={"ddo": "network"}) == []
    assert config == {}
    assert manager.hook.ddo_refset_command(step=step("fifth")) is None


def test_only_the_hooks_that_it_answers_are_listed(manager) -> None:
    hooks = {caller.name for caller in manager.get_hookcallers(manager.get_plugin("fourth"))}
    answered = {"options", "configure", "fakes", "refset_command", "features", "upstreams"}
    assert hooks == {f"ddo_{name}" for name in answered}


def test_every_hook_about_one_upstream_has_a_method() -> None:
    hooks = [name.removeprefix("ddo_") for name in vars(Integration) if name.startswith("ddo_")]
    assert {name for name in hooks if not hasattr(Integration, name)} == {"upstreams"}


def test_a_reference_set_is_tried_before_an_integrations_fakes(manager) -> None:
    class Refsets:
        @hookimpl
        def ddo_fakes(self, source: str) -> Fakes | None:
            return "refset" if source == "folder" else None  # type: ignore[return-value]

    manager.unregister(name="fourth")
    manager.register(Refsets(), "refsets")
    manager.register(Fourth(), "fourth")  # a later plugin is asked first, unless it asks to be the last
    asked = {"upstream": "fourth", "reference": None, "options": {}}
    assert manager.hook.ddo_fakes(source="folder", **asked) == "refset"
    assert manager.hook.ddo_fakes(source="images", **asked) == "images"


def test_an_overridden_hook_is_asked_instead_of_its_method() -> None:
    class Impatient(Fourth):
        @hookimpl(tryfirst=True)
        def ddo_convert(self, source):
            return "converted"

    manager = plugins.build([])
    manager.register(Impatient(), "impatient")
    assert manager.hook.ddo_convert(source=Path(), out=Path(), like=None) == "converted"


class Nameless(Integration):
    pass


class Misspelt(Fourth):
    def refernce(self, source, options):
        return None


class Short(Fourth):
    def reference(self, source):
        return None


class Unmarked(Fourth):
    def ddo_convert(self, source):
        return None


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (Fourth, "Fourth is a class; name an instance of it in the entry point"),
        (Nameless(), "Nameless must set `upstream` to an Upstream"),
        (Misspelt(), "Misspelt.refernce is no method of Integration; did you mean 'reference'?"),
        (Short(), "Short.reference must take the arguments (source, options)"),
        (Unmarked(), "Unmarked.ddo_convert is not decorated with hookimpl"),
    ],
)
def test_an_integration_that_would_never_be_asked_is_refused_by_name(plugin: object, words: str) -> None:
    class Point:
        name, dist = "theirs", None

        def load(self) -> object:
            return plugin

    with pytest.raises(UserError) as caught:
        plugins.build([Point()])
    assert caught.value.message == f"plugin 'theirs' (?) does not fit the hooks: {words}"


def test_the_integration_in_the_docs_prepares_a_session(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs/hooks.md").read_text()
    (source,) = (code for code in re.findall(r"```python\n(.*?)```", docs, re.S) if "class Mine" in code)
    names = {"__name__": "my_package", "MyLoss": lambda session: session}
    exec(source, names)

    # takes only the arguments of the real function
    names["load_reference"] = create_autospec(load_reference, return_value=Reference(None, "x.pkl", "0" * 64))
    manager = plugins.manager()
    manager.register(names["integration"], "mine")
    try:
        options = {"outdir": str(tmp_path), "ddo": "x.pkl", "ddo_objective": "mle", "ddo_alpha": 4.0, "ddo_beta": 0.05}
        config = {}
        assert any(manager.hook.ddo_configure(upstream="mine", config=config, options=options))
        assert config["loss"].outdir == tmp_path
    finally:
        manager.unregister(name="mine")
