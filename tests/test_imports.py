"""The direction of imports, and that nothing heavy is imported before it is needed."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import umtlib

PACKAGE = Path(umtlib.__file__).parent

# From the bottom to the top: a module imports from its own floor or from below, never from above.
FLOORS = [
    {"errors", "files"},
    {"config", "mulaw", "audio", "augment", "layers", "machine"},
    {"guide"},
    {"encoder", "decoder", "classifier", "corpora"},
    {"translator"},
    {"losses", "training"},
    {"small"},
    {"checkpoint", "generation"},
    {"evaluation", "notebook", "runs"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(dotted):
    """'umtlib.corpora.corpus' -> 'corpora'."""
    return dotted.split(".")[1] if "." in dotted else "__init__"


def name_of(path):
    return "umtlib." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path):
    """Dotted names of everything that a file imports from umtlib, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name.split(".")[0] == "umtlib")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module.split(".")[0] == "umtlib":
                yield from (f"{node.module}.{item.name}" for item in node.names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    own = room(name_of(path))
    assert own in FLOOR, f"give {own} a floor here and a line in the README"
    for target in imported(path):
        height = 0 if target == "umtlib.__version__" else FLOOR[room(target)]
        assert height <= FLOOR[own] or target == "umtlib", f"{name_of(path)} imports {target}"


def test_no_module_reaches_itself():
    modules = {name_of(path).removesuffix(".__init__"): path for path in FILES}
    known = sorted(modules, key=len, reverse=True)
    graph = {
        name: {next((m for m in known if f"{t}.".startswith(f"{m}.")), t) for t in imported(path)}
        for name, path in modules.items()
        if name != "umtlib"
    }
    graphlib.TopologicalSorter(graph).prepare()  # says who imports itself in a circle


def test_public_names_are_there():
    for name in umtlib.__all__:
        assert getattr(umtlib, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        umtlib.nonsense  # noqa: B018


def test_help_answers_at_once():
    """In half a second of a processor, however busy the machine; nothing heavy is imported."""
    code = (
        "import contextlib, sys, time, umtlib.cli\n"
        "with contextlib.suppress(SystemExit):\n    umtlib.cli.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pandas', 'librosa', 'matplotlib'}\n"
        "print(heavy & sys.modules.keys(), time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *told, last = done.stdout.splitlines()
    found, seconds = last.rsplit(maxsplit=1)
    assert told[0].startswith("Usage: umt ") and found == "set()" and float(seconds) < 0.5


def test_the_house_is_small():
    """The paper's path is read in an hour, and the package's first floor at a glance."""
    rooms = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(rooms) <= 26
    paper = ("config", "mulaw", "augment", "layers", "encoder", "decoder", "classifier",
             "translator", "losses", "training")  # fmt: skip
    files = [PACKAGE / f"{name}.py" for name in paper]
    assert sum(len(path.read_text("utf-8").splitlines()) for path in files) <= 1_250
    assert max(len(path.read_text("utf-8").splitlines()) for path in FILES) <= 400
