"""What the syntax tree says about inserted lines: which block they are in, and whether the names they use are bound.

A configuration must be complete where DDO gets it, and unused until then.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_IMPORTS = (ast.Import, ast.ImportFrom)
_JUMPS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_CHANGING_METHODS = ("update", "setdefault", "pop", "popitem", "clear", "append", "extend", "insert")


@dataclass(frozen=True)
class Block:
    """A list of statements, and which of them holds a line."""

    owner: ast.AST
    field: str
    statements: list[ast.stmt]
    index: int

    @property
    def statement(self) -> ast.stmt:
        return self.statements[self.index]

    @property
    def before(self) -> list[ast.stmt]:
        return self.statements[: self.index]

    @property
    def after(self) -> list[ast.stmt]:
        """Return what may run after the line; in a loop, also what is above it."""
        first = 0 if isinstance(self.owner, _LOOPS) and self.field == "body" else self.index + 1
        return [statement for statement in self.statements[first:] if statement is not self.statement]


def place_name(tree: ast.Module, line: int) -> str:
    """Return in which function and block a line is, such as "main", "build > if" or "@main" of a decorator."""
    blocks = _blocks(tree, line)
    names = [_block_name(block) for block in blocks[1:]]
    if line < blocks[-1].statement.lineno:
        names.append(f"@{getattr(blocks[-1].statement, 'name', '')}")
    return " > ".join(names)


def doubt(tree: ast.Module, inserted: Sequence[tuple[int, int, str | None]]) -> str:
    """Return why inserted lines would not do what they do in the version that the patch was made for, or "".

    Each insertion is its first line, the number of its lines, and the name of its place in that version.
    """
    blocks = {line: _blocks(tree, line) for start, count, _ in inserted for line in range(start, start + count)}
    statements = [one[-1].statement for one in blocks.values()]
    ours = {name for one in statements if isinstance(one, _IMPORTS) for name in _binds(one)}
    for start, _, place in inserted:
        if place is not None and (found := place_name(tree, start)) != place:
            return f"line {start} would be DDO's, but it is in {_shown(found)} instead of {_shown(place)}"
    for line, around in blocks.items():
        if reason := _doubt(around, line, ours):
            return f"line {line} would be DDO's, but {reason}"
    return ""


def _doubt(blocks: list[Block], line: int, ours: set[str]) -> str:
    reason = _unbound(blocks, line, ours) or _shadowed(blocks) or _unreachable(blocks)
    is_decorator = line < blocks[-1].statement.lineno
    return reason or ("" if is_decorator else _lost(blocks) or _unfinished(blocks))


def _shown(place: str) -> str:
    return f"`{place}`" if place else "no function"


def _block_name(block: Block) -> str:
    name = getattr(block.owner, "name", None) or type(block.owner).__name__.lower()
    return str(name) if block.field == "body" else f"{name} {block.field}"


def _blocks(tree: ast.Module, line: int) -> list[Block]:
    """Return the blocks around a line, outermost first."""
    blocks: list[Block] = []
    owner: ast.AST | None = tree
    while owner is not None:
        holding = list(_blocks_of(owner, line))
        if not holding:
            break
        blocks.append(holding[0])
        statement = holding[0].statement
        owner = statement if line > statement.lineno else None
    return blocks


def _blocks_of(owner: ast.AST, line: int) -> Iterator[Block]:
    for field, statements in ast.iter_fields(owner):
        if isinstance(statements, list) and statements and isinstance(statements[0], (ast.stmt, ast.excepthandler)):
            for index, statement in enumerate(statements):
                first = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])
                if first <= line <= (statement.end_lineno or first):
                    yield Block(owner, field, statements, index)


# -- names ----------------------------------------------------------------------------------------------------------


def _unbound(blocks: list[Block], line: int, ours: set[str]) -> str:
    for name in _read_names(blocks[-1].statement, line):
        if not _is_bound(name, blocks):
            return f"it needs `{name}`, which has no value there"
        if name in ours and any(name in _stored(scope[0].owner) for scope in _scopes(blocks)[1:]):
            return f"`{name}` has another value there"
    return ""


def _read_names(statement: ast.stmt, line: int) -> list[str]:
    """Return the names that the code of a line reads outside the functions that it defines, and what those read."""
    if line < statement.lineno:
        roots: list[ast.AST] = [one for one in getattr(statement, "decorator_list", ()) if one.lineno == line]
    else:
        roots = [statement]
    names = [node for root in roots for node in ast.walk(root) if isinstance(node, ast.Name)]
    own = {one.arg for root in roots for one in ast.walk(root) if isinstance(one, ast.arg)}
    return [node.id for node in names if isinstance(node.ctx, ast.Load) and node.id not in own]


def _is_bound(name: str, blocks: list[Block]) -> bool:
    """Return whether a name surely has a value at a line; names of outer scopes need one somewhere there."""
    scopes = _scopes(blocks)
    for number, scope in enumerate(reversed(scopes)):
        owner, inner = scope[0].owner, number == 0
        if isinstance(owner, ast.ClassDef) and not inner:
            continue  # functions do not see the names of their class
        if name in _globals(owner):
            break
        if name in _stored(owner):
            return name in _surely_bound(scope) if inner else True
    return (len(scopes) > 1 and name in _stored(scopes[0][0].owner)) or hasattr(builtins, name)


def _scopes(blocks: list[Block]) -> list[list[Block]]:
    """Group the blocks by the module, class or function whose names they bind."""
    scopes: list[list[Block]] = []
    for block in blocks:
        if not scopes or isinstance(block.owner, _SCOPES):
            scopes.append([])
        scopes[-1].append(block)
    return scopes


def _surely_bound(scope: list[Block]) -> set[str]:
    """Return the names that have a value when the line is reached."""
    bound = _parameters(scope[0].owner)
    for block in scope:
        if block.field in ("body", "handlers"):
            bound |= _bound_by_header(block.owner)
        bound = _after(block.before, bound)
    return bound


def _after(statements: Sequence[ast.AST], bound: set[str]) -> set[str]:
    """Return the names that have a value after these statements, if they had one before or get one on every way."""
    for statement in statements:
        bound = _after_one(statement, bound)
    return bound


def _after_one(node: ast.AST, bound: set[str]) -> set[str]:
    if isinstance(node, ast.If):
        ways = [_after(way, bound) for way in (node.body, node.orelse) if not _ends(way)]
        return set.intersection(*ways) if ways else bound
    if isinstance(node, _LOOPS):
        return bound - _deleted(node)
    if isinstance(node, ast.Try):
        ways = [_after(one.body, bound - _deleted(node)) for one in node.handlers if not _ends(one.body)]
        if not _ends([*node.body, *node.orelse]):
            ways.append(_after([*node.body, *node.orelse], bound))
        return _after(node.finalbody, set.intersection(*ways) if ways else bound)
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return _after(node.body, bound | _bound_by_header(node))
    if isinstance(node, ast.Match):
        return bound - _deleted(node)
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return bound
    return (bound | _stored_in([node])) - _deleted(node)


def _ends(statements: Sequence[ast.stmt]) -> bool:
    """Return whether what follows a block never runs after it."""
    return any(_ends_one(statement) for statement in statements)


def _ends_one(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return _ends(statement.body) and _ends(statement.orelse)
    if isinstance(statement, ast.Try):
        ways = [*statement.body, *statement.orelse], *(handler.body for handler in statement.handlers)
        return _ends(statement.finalbody) or all(_ends(way) for way in ways)
    return isinstance(statement, _JUMPS)


def _bound_by_header(owner: ast.AST) -> set[str]:
    if isinstance(owner, (ast.For, ast.AsyncFor)):
        return _stored_in([owner.target])
    if isinstance(owner, (ast.With, ast.AsyncWith)):
        return _stored_in(owner.items)
    if isinstance(owner, ast.ExceptHandler) and owner.name:
        return {owner.name}
    return set()


def _parameters(owner: ast.AST) -> set[str]:
    if not isinstance(owner, _FUNCTIONS):
        return set()
    return {one.arg for one in ast.walk(owner.args) if isinstance(one, ast.arg)}


def _stored(owner: ast.AST) -> set[str]:
    """Return the names that are bound anywhere in a module, class or function."""
    return _parameters(owner) | _stored_in(getattr(owner, "body", ()))


def _stored_in(roots: Sequence[ast.AST]) -> set[str]:
    return {name for root in roots for node in _own_nodes(root) for name in _binds(node)}


def _own_nodes(root: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that belong to the same scope as `root`, in no order."""
    todo = [root]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*_SCOPES, *_COMPREHENSIONS)):
            todo += ast.iter_child_nodes(node)


def _binds(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, _IMPORTS):
        return [one.asname or one.name.split(".")[0] for one in node.names]
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        return [node.name]
    return []


def _deleted(root: ast.AST) -> set[str]:
    return {node.id for node in _own_nodes(root) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del)}


def _globals(owner: ast.AST) -> set[str]:
    body = getattr(owner, "body", ())
    nodes = [node for root in body if isinstance(body, list) for node in _own_nodes(root)]
    return {name for node in nodes if isinstance(node, ast.Global) for name in node.names}


# -- what an inserted line is for -----------------------------------------------------------------------------------


def _shadowed(blocks: list[Block]) -> str:
    """Return which name that the statement defines is defined elsewhere too, so that one of the two would be lost."""
    statement = blocks[-1].statement
    if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, *_IMPORTS)):
        return ""
    scope = _scopes(blocks)[-1][0].owner
    nodes = [node for root in getattr(scope, "body", ()) for node in _own_nodes(root) if node is not statement]
    for name in _binds(statement):
        if lines := [getattr(node, "lineno", 0) for node in nodes if name in _binds(node)]:
            return f"`{name}` is defined in line {min(lines)} too"
    return ""


def _unreachable(blocks: list[Block]) -> str:
    return "no way leads there" if any(_ends(block.before) for block in blocks) else ""


def _lost(blocks: list[Block]) -> str:
    """Return which name that the line assigns gets an unrelated value later, or is not used."""
    statement = blocks[-1].statement
    if not isinstance(statement, ast.Assign):
        return ""
    after = [node for block in _scopes(blocks)[-1] for one in block.after for node in _own_nodes(one)]
    for name in sorted(_stored_in([statement])):
        if lines := [node.lineno for node in after if isinstance(node, ast.stmt) and _replaces(node, name)]:
            return f"`{name}` gets another value in line {min(lines)}"
        is_local = isinstance(_scopes(blocks)[-1][0].owner, _FUNCTIONS)  # others are seen from elsewhere
        if is_local and not any(_reads(node, name) for node in after):
            return f"`{name}` is not used after it"
    return ""


def _replaces(node: ast.stmt, name: str) -> bool:
    """Return whether a statement gives a name a value that is not made from the former one."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        made_from_it = node.value is not None and any(_reads(one, name) for one in ast.walk(node.value))
        return name in _after_one(node, set()) and not made_from_it
    return name in _bound_by_header(node) or name in _binds(node)


def _reads(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


def _unfinished(blocks: list[Block]) -> str:
    """Return why a configuration is not complete at the line, or was used before it."""
    name = _configuration(blocks[-1].statement)
    if not name:
        return ""
    scope = _scopes(blocks)[-1]
    before = [one for block in scope for one in block.before]
    after = [one for block in scope for one in block.after]
    if used := [node for one in before for node in _whole_uses(one, name)]:
        return f"the configuration `{name}` is used in line {min(node.lineno for node in used)} already"
    if changed := [node for one in after for node in _visible(one, name) if _changes(node, name)]:
        line = min(getattr(node, "lineno", 0) for node in changed)
        return f"the configuration `{name}` is changed in line {line} after it"
    if not any(_whole_uses(one, name) for one in after):
        return f"the configuration `{name}` is not used after it"
    return ""


def _configuration(statement: ast.stmt) -> str:
    """Return the name of the configuration that a call of `inject.configure(upstream, configuration, …)` gets."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "inject.configure" or len(call.args) < 2:
        return ""
    return call.args[1].id if isinstance(call.args[1], ast.Name) else ""


def _visible(root: ast.AST, name: str) -> Iterator[ast.AST]:
    """Yield the nodes for which a name is the one of the scope of `root`."""
    todo = [root]
    while todo:
        node = todo.pop()
        yield node
        if name not in _bound_within(node):
            todo += ast.iter_child_nodes(node)


def _bound_within(node: ast.AST) -> set[str]:
    if isinstance(node, _COMPREHENSIONS):
        return _stored_in([generator.target for generator in node.generators])
    if isinstance(node, ast.Lambda):
        return _parameters(node)
    return _stored(node) if isinstance(node, _FUNCTIONS) else set()


def _whole_uses(root: ast.AST, name: str) -> list[ast.Name]:
    """Return where the value of a name is used as a whole, and not one of its attributes or items."""
    nodes = list(_visible(root, name))
    parts = {id(node.value) for node in nodes if isinstance(node, (ast.Attribute, ast.Subscript))}
    return [node for node in nodes if isinstance(node, ast.Name) and _reads(node, name) and id(node) not in parts]


def _changes(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
        return _root(node) == name
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr in _CHANGING_METHODS and _root(called) == name


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
