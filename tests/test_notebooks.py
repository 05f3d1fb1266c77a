"""The notebooks keep the rules of the house; that they run and are right is nbval's to check."""

import ast
import copy
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from strip_notebooks import strip

from umtlib.notebook import colab, figures, players

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
MARK = "# NBVAL_CHECK_OUTPUT"
LONGEST_CELL = 25  # lines
LONGEST_RUN = 3  # minutes
FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# A path from the root of a disk, but no fraction, no address, and no path below a folder.
ABSOLUTE = re.compile(r"(?<![\w.:/])(/[\w.-]+){2,}|\b[A-Z]:\\|\bfile://")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def faults(notebook):
    """Yield what is wrong with a notebook."""
    code, text = code_cells(notebook), prose(notebook)
    checked = [cell for cell in code if cell.source.startswith(MARK)]
    if len(checked) < 3:
        yield "fewer than three checked cells"
    if any(not cell.execution_count or not cell.outputs for cell in checked):
        yield "a checked cell without execution count or output"
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "not run from top to bottom"
    if any(MARK in cell.source.split("\n", 1)[-1] for cell in code if "\n" in cell.source):
        yield "a mark that is not in the first line"
    if any(len(cell.source.splitlines()) > LONGEST_CELL for cell in code):
        yield "a long cell"
    if strip(notebook) != notebook:
        yield "not stripped"
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        yield "an error"
    outputs = str([cell.outputs for cell in code])
    if "base64" in outputs or re.search(r"[A-Za-z0-9+/]{200}", outputs):
        yield "binary output"
    if ABSOLUTE.search(outputs.replace("\\n", "\n")):
        yield "an absolute path"
    minutes = re.search(r"^\*\*Time:\*\* about (\d+) minutes? on a CPU", text, re.MULTILINE)
    if not minutes or int(minutes[1]) > LONGEST_RUN:
        yield "no minutes, or too many"
    exercises = len(re.findall(r"^\*\*Exercise \d", text, re.MULTILINE))
    if not exercises or any(text.count(tag) != exercises for tag in ("<details>", "</details>")):
        yield "no exercise, or one without its solution"
    if len(FENCED.sub("", text)) < 1.2 * sum(len(cell.source) for cell in code):
        yield "too little prose for the code"
    for source in [cell.source for cell in code] + FENCED.findall(text):
        try:
            ast.parse(re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE))
        except SyntaxError:
            yield "no Python"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    assert list(faults(read(path))) == []


def test_notebooks_are_in_order():
    names = [path.name for path in PATHS]
    assert [name[:3] for name in names] == [f"{n:02}_" for n in range(1, len(names) + 1)]
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[.*?\]\((\w+\.ipynb)\)", table, re.MULTILINE) == names
    for path, following in zip(PATHS, [*names[1:], "README.md"], strict=True):
        assert f"]({following})" in read(path).cells[-1].source, f"{path.name} does not lead on"


def test_all_begin_with_the_same_cell():
    first = {code_cells(read(path))[0].source for path in PATHS}
    assert len(first) == 1
    assert '"google.colab" in sys.modules' in first.pop()


# --- and a notebook that breaks a rule is found ---------------------------------------------------


def checked(notebook):
    return next(cell for cell in code_cells(notebook) if cell.source.startswith(MARK))


def unmark(notebook):
    for cell in code_cells(notebook):
        cell.source = cell.source.replace(MARK, "#")


def show(notebook, **data):
    found = nbformat.v4.new_output(
        "display_data", {k.replace("_", "/"): v for k, v in data.items()}
    )
    checked(notebook).outputs.append(found)


def say(notebook, text):
    checked(notebook).outputs.append(nbformat.v4.new_output("stream", name="stdout", text=text))


def replace(notebook, old, new):
    for cell in notebook.cells:
        cell.source = re.sub(old, new, cell.source)


def clear_counts(notebook):
    for cell in code_cells(notebook):
        cell.execution_count = None


BREAK = {
    "fewer than three checked cells": unmark,
    "a checked cell without execution count or output": clear_counts,
    "not run from top to bottom": lambda n: code_cells(n)[1].update(execution_count=99),
    "a mark that is not in the first line": lambda n: replace(n, "\nimport", f"\n{MARK}\nimport"),
    "a long cell": lambda n: code_cells(n)[-1].update(source="x = 1\n" * 26),
    "not stripped": lambda n: show(n, image_png="iVBOR", text_plain="<Figure>"),
    "an error": lambda n: checked(n).outputs.append(nbformat.v4.new_output("error", evalue="1")),
    "binary output": lambda n: say(n, "UklGRiQAAAB" * 30),
    "an absolute path": lambda n: say(n, "saved to /home/somebody/model"),
    "no minutes, or too many": lambda n: replace(n, "about . minute", "about 9 minute"),
    "no exercise, or one without its solution": lambda n: replace(n, "<details>", ""),
    "too little prose for the code": lambda n: n.cells.append(
        nbformat.v4.new_code_cell("\n".join(["x" * 5_000] * 10))
    ),
    "no Python": lambda n: replace(n, "```python\n", "```python\nx = = 1\n"),
}


@pytest.mark.parametrize("fault", BREAK)
def test_broken_rule_is_found(fault):
    notebook = copy.deepcopy(read(PATHS[0]))
    BREAK[fault](notebook)
    assert fault in list(faults(notebook))


@pytest.mark.parametrize(
    "text", ["1/2 of 3/4", "https://a.org/b/c", "data/mini/train", "a / b / c"]
)
def test_what_is_no_absolute_path(text):
    assert not ABSOLUTE.search(text)


def test_stripping_keeps_text_and_counts():
    cell = nbformat.v4.new_code_cell("1", execution_count=7)
    stream = {"output_type": "stream", "name": "stdout"}
    cell.outputs = [
        nbformat.v4.new_output(**stream, text="a\n"),
        nbformat.v4.new_output(**stream, text="b\n"),
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("display_data", {"image/png": "iVBOR", "text/plain": "<Figure>"}),
        nbformat.v4.new_output("execute_result", {"text/plain": "42"}, execution_count=7),
    ]
    (stripped,) = strip(nbformat.v4.new_notebook(cells=[cell])).cells
    assert stripped.execution_count == 7
    first, second = stripped.outputs
    assert (first.text, second.data) == ("a\nb\n", {"text/plain": "42"})


# --- what only notebooks use ----------------------------------------------------------------------


def test_players_have_titles_and_do_not_mind_loud_sounds():
    shown = players.play({"a < b": np.array([0.0, 2.0, -2.0]), "quiet": np.zeros(10)}).data
    assert "a &lt; b" in shown and shown.count("<audio") == 2


@pytest.mark.parametrize(
    "value",
    [
        {"first.wav": {"content": b"no"}, "../tune.mp3": {"content": b"sound"}},  # ipywidgets 7
        ({"name": "first.wav", "content": b"no"},
         {"name": "../tune.mp3", "content": memoryview(b"sound")}),  # ipywidgets 8
    ],
)  # fmt: skip
def test_upload_of_both_generations_of_widgets(value):
    path = players.uploaded(SimpleNamespace(value=value))
    assert (path.name, path.read_bytes()) == ("tune.mp3", b"sound")


@pytest.mark.parametrize("value", [{}, ()])
def test_no_upload_yet(value):
    assert players.uploaded(SimpleNamespace(value=value)) is None


def test_colab_keeps_what_is_installed(monkeypatch):
    assert colab.installed(("numpy", "no-such-package")) == [f"numpy=={np.__version__}"]
    seen = {}

    def pip(command, check):
        seen["command"] = [str(word) for word in command]
        seen["pins"] = Path(command[command.index("--constraint") + 1]).read_text()

    monkeypatch.setattr(colab.subprocess, "run", pip)
    colab.set_up("somewhere")
    assert seen["command"][-2:] == ["--editable", "somewhere"]
    assert f"numpy=={np.__version__}\n" in seen["pins"] and "torch==" in seen["pins"]


def test_connections_reach_the_receptive_field():
    axes = figures.connections([1, 2, 4], samples=8).axes[0]
    oldest = min(line.get_xdata()[0] for line in axes.get_lines())
    assert oldest == 1 - 8
    assert len(axes.get_lines()) == 2 + 4 + 8


def test_latent_and_choice_are_drawn():
    assert figures.latent(np.eye(4), 800, [0.1]).axes[0].get_xlim() == (0, 0.2)
    assert "code 3" in str(
        [text.get_text() for text in figures.choice(np.full(256, 1 / 256), 0.5, 3).axes[1].texts]
    )
