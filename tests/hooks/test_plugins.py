"""The registry: what is installed, what is refused, what is reported."""

from __future__ import annotations

from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
from click.testing import CliRunner

from ddo_plugin.base.errors import UserError
from ddo_plugin.cli import main
from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import Upstream


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write modules and get entry points for them, as an installed package would bring."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources: str) -> list[EntryPoint]:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text("from ddo_plugin import hookimpl\n" + source)
        return [EntryPoint(name, name, plugins.GROUP) for name in sources]

    return write


def test_ours_come_through_entry_points_as_a_strangers_does() -> None:
    listed = {listing.name: listing for listing in plugins.manager().listings}
    assert {"builtin", "digits", "edm", "edm2", "var"} <= set(listed)
    assert {listed[name].distribution for name in ("builtin", "digits", "edm", "edm2", "var")} == {"ddo-plugin"}
    assert "ddo_objectives" in listed["builtin"].hooks


def test_a_misspelt_hook_names_the_plugin_and_the_nearest_hook(strangers) -> None:
    points = strangers(typo="@hookimpl\ndef ddo_objektives(): ...")
    with pytest.raises(UserError, match=r"'typo'.*'ddo_objektives'.*'ddo_objectives'"):
        plugins.build(points)


def test_an_argument_that_the_hook_has_not_is_refused_with_the_plugins_name(strangers) -> None:
    points = strangers(curious="@hookimpl\ndef ddo_snapshot(path, epoch): ...")
    with pytest.raises(UserError, match=r"'curious'.*epoch"):
        plugins.build(points)


def test_a_plugin_that_cannot_be_imported_is_reported_and_the_others_live(strangers, capsys) -> None:
    points = strangers(
        broken="import no_such_package",
        healthy="@hookimpl\ndef ddo_objectives():\n    return {'mine': None}",
    )
    manager = plugins.build(points)
    assert "plugin 'broken'" in capsys.readouterr().err
    by_name = {listing.name: listing for listing in manager.listings}
    assert "no_such_package" in by_name["broken"].error
    assert manager.hook.ddo_objectives() == [{"mine": None}]


def test_a_later_plugins_answer_comes_before_ours(strangers) -> None:
    points = strangers(other="@hookimpl\ndef ddo_features(name):\n    return 'theirs'")
    ours = EntryPoint("digits", "ddo_integrations.demo.plugin:integration", plugins.GROUP)
    assert plugins.build([*points, ours]).hook.ddo_features(name="digits:/nowhere") == "theirs"


def test_of_two_upstreams_with_one_name_the_later_plugins_counts(monkeypatch) -> None:
    both = [Upstream("edm", title, "train.py") for title in ("ours", "theirs")]
    monkeypatch.setattr(plugins, "upstreams", lambda: both)
    assert plugins.upstreams_by_name() == {"edm": both[1]}


def test_tracing_prints_each_call_its_answerers_and_the_result(strangers, monkeypatch, capsys) -> None:
    monkeypatch.setenv(plugins.TRACE_VARIABLE, "1")
    manager = plugins.build(strangers(one="@hookimpl\ndef ddo_features(name):\n    return name.upper()"))
    capsys.readouterr()
    manager.hook.ddo_features(name="inception")
    assert capsys.readouterr().err.splitlines() == [
        "[hook] ddo_features(name='inception') -> one",
        "[hook] ddo_features = 'INCEPTION'",
    ]


def test_without_tracing_nothing_is_printed(strangers, monkeypatch, capsys) -> None:
    monkeypatch.delenv(plugins.TRACE_VARIABLE, raising=False)
    plugins.build(strangers(one="@hookimpl\ndef ddo_features(name): ...")).hook.ddo_features(name="inception")
    assert capsys.readouterr().err == ""


def test_ddo_plugins_lists_names_versions_hooks_and_upstreams() -> None:
    result = CliRunner().invoke(main, ["plugins"])
    assert result.exit_code == 0
    assert f"digits  ddo-plugin {version('ddo-plugin')}\n" in result.output
    assert "  ddo_round_command\n" in result.output
    assert "upstream edm: EDM (NVlabs/edm), train.py" in result.output
