"""A script with DDO's three lines, and edits after which the lines would not work."""

import ast

import pytest

from ddo_plugin.checkouts.patching.make import compare
from ddo_plugin.checkouts.patching.placing import State, inspect
from ddo_plugin.checkouts.patching.scopes import place_name

SCRIPT = """\
import click
import upstream

# options
@click.command()

def main(**kwargs):
    opts = dict(kwargs)
    c = {}
    c["lr"] = opts["lr"]
    # configured

    # print
    print(c)
    upstream.train(**c)

if __name__ == "__main__":
    main()
"""
IMPORT, OPTIONS, CONFIGURE = (
    "from ddo_plugin import inject",
    '@inject.options("x")',
    '    inject.configure("x", c, opts)',
)
PATCHED = (
    SCRIPT.replace("import click\n", f"import click\n{IMPORT}\n")
    .replace("@click.command()\n", f"@click.command()\n{OPTIONS}\n")
    .replace("    # configured\n", f"    # configured\n{CONFIGURE}\n")
)
HARMLESS = [
    ("# options", "import json\n\n# options"),
    ("    c = {}", "    if opts: c = {}\n    else: c = {'lr': 1}"),
    ("    c = {}", "    try: c = {}\n    except ValueError: raise"),
    ("    c = {}", "    with open('x') as file: c = {}"),
    ("    c = {}", "    for c in (): pass\n    c = {}"),
    ("    c = {}", "    if not opts: return\n    c = {}"),
    ("    c = {}", "    def helper(c): c['x'] = 1; return c\n    c = {}"),
    ("    c = {}", "    c = {n: c for n, c in ()}"),
    ("    upstream.train(**c)", "    upstream.train(c['lr'], **c)"),
    ("# options", "def other():\n    inject = 1\n    return inject\n\n# options"),
    ("# options", "def other(c):\n    c.x = 1\n    return c\n\n# options"),
]
HARMFUL = [
    ("opts = dict", "args = dict", "it needs `opts`"),
    ("    c = {}", "    if opts: c = {}", "it needs `c`"),
    ("    c = {}", "    while opts: c = {}", "it needs `c`"),
    ("    c = {}", "    for c in (): pass", "it needs `c`"),
    ("    c = {}", "    try: c = {}\n    except ValueError: pass", "it needs `c`"),
    ("    c = {}", "    c: dict", "it needs `c`"),
    ("    c = {}", "    (lambda: [c := {}])", "it needs `c`"),
    ("    c = {}", "    [c for c in ()]", "it needs `c`"),
    ("    c = {}", "    global c", "it needs `c`"),
    ("    c = {}", "    c = {}\n    if opts: del c", "it needs `c`"),
    ("    c = {}", "    c = {}\n    return", "no way leads there"),
    ("    c = {}", "    c = {}\n    if opts: return\n    else: raise ValueError", "no way leads there"),
    ("    c = {}", "    c = {}\n    upstream.train(c)", "is used in line 12"),
    ("    c = {}", "    c = {}\n    import a as inject", "`inject` has another value"),
    ("    print(c)", "    print(c)\n    c['lr'] = 1", "is changed in line 18"),
    ("    print(c)", "    print(c)\n    c['kwargs'].update(lr=1)", "is changed in line 18"),
    ("    print(c)", "    print(c)\n    if opts: c = {}", "is changed in line 18"),
    ("    print(c)\n    upstream.train(**c)", "    upstream.train(lr=1)", "is not used after it"),
    ("    upstream.train(**c)", "    upstream.train(lr=1)\n    del c", "is changed in line 19"),
    ("# options", "inject = 1\n# options", "`inject` is defined in line 5 too"),
    ("import click", "import inject\nimport click", "fits no place"),
    ("if __name__", "def main(): pass\nif __name__", "`main` is defined in line 20 too"),
    ("if __name__", "from a import b as inject\nif __name__", "`inject` is defined in line 20 too"),
    ("if __name__", "return\nif __name__", "not valid Python"),
]


@pytest.fixture
def patch():
    return compare("script.py", SCRIPT.encode(), PATCHED.encode())


def test_the_patch_records_where_its_lines_are(patch):
    assert [hunk.place for hunk in patch.hunks] == ["", "@main", "main"]


def test_the_name_of_a_place_tells_functions_and_blocks():
    tree = ast.parse("class A:\n def f(self):\n  if self:\n   pass\n  else:\n   here\n  @here\n  def g(): pass")
    assert place_name(tree, 6) == "A > f > if orelse"
    assert place_name(tree, 7) == "A > f > @g"


@pytest.mark.parametrize(("old", "new"), HARMLESS)
def test_an_edit_that_leaves_the_names_alone_is_patchable(patch, old, new):
    found = inspect(patch, SCRIPT.replace(old, new, 1).encode())
    assert (found.state, found.reason) == (State.SHIFTED, "")


@pytest.mark.parametrize(("old", "new", "reason"), HARMFUL)
def test_an_edit_after_which_the_lines_would_not_work_is_refused(patch, old, new, reason):
    edited = SCRIPT.replace(old, new, 1)
    assert edited != SCRIPT
    found = inspect(patch, edited.encode())
    assert found.state is State.CONFLICTING
    assert reason in found.reason
    assert "\n" not in found.reason


def test_a_function_that_is_put_into_another_one_is_refused(patch):
    edited = "def outer():\n" + SCRIPT.replace("def main", "    def main")
    assert inspect(patch, edited.encode()).state is State.CONFLICTING
    nested = SCRIPT.replace("def main(**kwargs):\n", "def main(**kwargs):\n  def inner(opts, c):\n")
    assert "`main > inner` instead of `main`" in inspect(patch, nested.encode()).reason


def test_an_edit_of_a_patched_file_is_judged_too(patch):
    found = inspect(patch, PATCHED.replace("opts = dict", "args = dict").encode())
    assert found.state is State.CONFLICTING
    assert "it needs `opts`" in found.reason
    assert found.without_lines == SCRIPT.replace("opts = dict", "args = dict").encode()
