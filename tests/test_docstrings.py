"""Every public function says in its docstring which of the package's errors it raises."""

import ast
import inspect
from pathlib import Path

import pytest

import umtlib
from umtlib import errors

PACKAGE = Path(umtlib.__file__).parent
ERRORS = {name for name, kind in inspect.getmembers(errors, inspect.isclass)}
FILES = sorted({*PACKAGE.rglob("*.py")} - {*PACKAGE.glob("cli/*")})  # a command has help
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(node):
    """'x' of ``x``, ``y.x`` and ``x(...)``."""
    node = getattr(node, "func", node)
    return getattr(node, "attr", getattr(node, "id", ""))


def raised(node, helpers, seen=frozenset()):
    """Errors that leave some code: its own, and those of the private helpers that it calls."""
    if isinstance(node, ast.Try):
        caught = {name_of(kind) for handler in node.handlers
                  for kind in getattr(handler.type, "elts", [handler.type])}  # fmt: skip
        inside = set().union(*(raised(child, helpers, seen) for child in node.body))
        left = inside if caught.isdisjoint({"UmtError", "Exception"}) else set()
        rest = [*node.handlers, *node.orelse, *node.finalbody]
        return (left - caught).union(*(raised(child, helpers, seen) for child in rest))
    found = set()
    if isinstance(node, ast.Raise) and node.exc:
        found |= {name_of(node.exc)} & ERRORS
    if isinstance(node, ast.Call) and (name := name_of(node)) in helpers.keys() - seen:
        found |= raised(helpers[name], helpers, seen | {name})
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef):
            found |= raised(child, helpers, seen)
    return found


def public(tree):
    """Yield the functions that others call, with the docstrings that speak for them."""
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    for owner in [tree, *classes]:
        for node in owner.body:
            made = getattr(node, "name", "") in ("__init__", "__post_init__")
            if isinstance(node, FUNCTION) and (made or not node.name.startswith("_")):
                yield node, ast.get_docstring(owner if made else node) or ""


def silent(path):
    """What a file's public functions raise and do not say, by their names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    helpers = {
        node.name: node
        for node in ast.walk(tree)
        if isinstance(node, FUNCTION) and node.name.startswith("_") and node.name[1] != "_"
    }
    unsaid = {f: {e for e in raised(f, helpers) if e not in said} for f, said in public(tree)}
    return {function.name: errors for function, errors in unsaid.items() if errors}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_docstrings_say_what_is_raised(path):
    assert silent(path) == {}


def test_the_search_finds_what_it_should(tmp_path):
    (tmp_path / "x.py").write_text(
        "def loud():\n    '''Do, or raise ConfigError.'''\n    raise ConfigError\n"
        "def mute():\n    '''Say nothing.'''\n    with _help():\n        pass\n"
        "def calm():\n    try:\n        mute(_help())\n    except ConfigError:\n        pass\n"
        "def _help():\n    raise ConfigError('x')\n"
    )
    assert silent(tmp_path / "x.py") == {"mute": {"ConfigError"}}
