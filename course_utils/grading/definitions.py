"""What a notebook defines, without running its experiments: imports, functions, classes and constants.

A cell that Python cannot read costs what it would have defined, and a definition that fails costs itself. Meant to run
where submissions run: Python's parser is not made for hostile text.
"""

import __future__

import ast
import re
import types
from typing import NamedTuple

FUTURE_ANNOTATIONS = __future__.annotations.compiler_flag
PLAIN_CELL_MAGICS = ("%%time", "%%timeit", "%%capture")
LINE_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|[\w.]+\?{1,2}\s*)$")
ASSIGNED_MAGIC = re.compile(r"^(\s*[\w, ]+=\s*)[%!].*$")


class Definition(NamedTuple):
    """One statement that defines something. cell: its number among the code cells, from 1."""

    cell: int
    node: ast.stmt


class Found(NamedTuple):
    """definitions: in the notebook's order. problems: a sentence for each cell that cannot be read."""

    definitions: list[Definition]
    problems: list[str]


def find(cells: list[str]) -> Found:
    """The definitions of a notebook's code cells.

    >>> found = find(["import math\\nprint('a long experiment')", "def f(x):\\n    return x", "k = 3 * 2", "k = f(2)"])
    >>> [ast.unparse(definition.node).splitlines()[0] for definition in found.definitions]
    ['import math', 'def f(x):', 'k = 3 * 2']
    >>> find(["def f(:"]).problems
    ['code cell 1 is not Python: invalid syntax in line 1']
    """
    definitions, problems = [], []
    for number, source in enumerate(cells, start=1):
        try:
            tree = _parse(source)
        except SyntaxError as error:
            problems.append(f"code cell {number} is not Python: {error.msg} in line {error.lineno}")
        except (ValueError, RecursionError, MemoryError):  # a null byte, or nested without end
            problems.append(f"code cell {number} is not Python")
        else:
            definitions += [Definition(number, node) for node in tree.body if _defines(node)]
    return Found(definitions, problems)


def run(found: Found, module: types.ModuleType) -> list[str]:
    """Run the definitions in the module, each alone. Returns a sentence for each that failed.

    >>> module = types.ModuleType("submission")
    >>> run(find(["import no_such_module\\ndef f(): return 1"]), module), module.f()
    (['code cell 1 line 1 stops with ModuleNotFoundError'], 1)
    """
    failed = []
    flags = 0
    for cell, node in found.definitions:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            flags |= FUTURE_ANNOTATIONS if any(alias.name == "annotations" for alias in node.names) else 0
            continue
        try:
            tree = ast.Module([node], type_ignores=[])
            exec(compile(tree, f"<code cell {cell}>", "exec", flags, dont_inherit=True), vars(module))
        except BaseException as error:  # SystemExit, too
            failed.append(f"code cell {cell} line {node.lineno} stops with {type(error).__name__}")
    return failed


def _parse(source: str) -> ast.Module:
    """The tree of a cell; IPython's magics are taken out where Python alone cannot read it."""
    first = source.lstrip().split("\n", 1)[0]
    if first.startswith("%%"):
        if not first.startswith(PLAIN_CELL_MAGICS):
            return ast.Module([], type_ignores=[])
        source = source.replace(first, "", 1)
    try:
        return ast.parse(source)
    except SyntaxError as error:
        lines = [ASSIGNED_MAGIC.sub(r"\1None", LINE_MAGIC.sub(r"\1pass", line)) for line in source.split("\n")]
        if lines == source.split("\n"):
            raise
        try:
            return ast.parse("\n".join(lines))
        except SyntaxError:
            raise error from None


def _defines(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return True
        case ast.Assign(targets=targets, value=value):
            return all(_is_name(target) for target in targets) and _is_constant(value)
        case ast.AnnAssign(target=ast.Name(), value=value):
            return value is not None and _is_constant(value)
        case ast.Try() | ast.TryStar():  # an import with another in its place
            parts = [*node.body, *node.orelse, *node.finalbody, *(line for one in node.handlers for line in one.body)]
            return all(_defines(part) or isinstance(part, ast.Pass) for part in parts)
        case _:
            return False


def _is_name(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List):
        return all(_is_name(item) for item in node.elts)
    return isinstance(node, ast.Name)


def _is_constant(node: ast.expr) -> bool:
    """Literals, names and attributes of what is known, arithmetic of them, and functions without a name."""
    match node:
        case ast.Constant() | ast.Name() | ast.Lambda():
            return True
        case ast.Attribute(value=value):
            return _is_constant(value)
        case ast.UnaryOp(operand=operand):
            return _is_constant(operand)
        case ast.BinOp(left=left, right=right):
            return _is_constant(left) and _is_constant(right)
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return all(_is_constant(item) for item in items)
        case ast.Dict(keys=keys, values=values):
            return all(key is None or _is_constant(key) for key in keys) and all(map(_is_constant, values))
        case _:
            return False
