"""The notebooks keep the rules of the house; that they run and are right is nbval's to check."""

import ast
import base64
import copy
import io
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import soundfile
from course import SELF_TEST
from PIL import Image

import notebooks as making
from umtlib.notebook import figures, players, plots

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
MARK = making.MARK
BEST = making.BEST_FIRST[0]
FEWEST_CHECKS = 4
LONGEST_CELL = 25  # lines
LONGEST_RUN = 3  # minutes
FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
# A path from the root of a disk, but no fraction, no address, and no path below a folder.
ABSOLUTE = re.compile(r"(?<![\w.:/])(/[\w.-]+){2,}|\b[A-Z]:\\|\bfile://")
EMBEDDED = re.compile(r"[A-Za-z0-9+/=\n]{200,}")  # pictures and sounds
MINUTES = re.compile(r"^\*\*Time:\*\* about (\d+) minutes? on a CPU\b[^*]*?\bT4\b", re.MULTILINE)


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
    if len(checked) < FEWEST_CHECKS:
        yield "too few checked cells"
    if any(not cell.outputs for cell in checked):
        yield "a checked cell without output"
    if any(set(output.get("data", ())) - {"text/plain"} for c in checked for output in c.outputs):
        yield "a checked cell that shows more than text"
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "not run from top to bottom"
    if any(MARK in cell.source.split("\n", 1)[-1] for cell in code if "\n" in cell.source):
        yield "a mark that is not in the first line"
    if any(len(cell.source.splitlines()) > LONGEST_CELL for cell in code):
        yield "a long cell"
    if making.keep(notebook, BEST) != notebook:
        yield "not made by make notebooks"
    if len(nbformat.writes(notebook)) > making.LIMIT:
        yield "too large"
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        yield "an error"
    if ABSOLUTE.search("\n".join(printed(cell) for cell in code)):
        yield "an absolute path"
    yield from faults_of_teaching(text)
    if len(FENCED.sub("", text)) < 1.2 * sum(len(cell.source) for cell in code[1:]):
        yield "too little prose for the code"
    for source in [cell.source for cell in code] + FENCED.findall(text):
        try:
            ast.parse(re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE))
        except SyntaxError:
            yield "no Python"


def printed(cell):
    """Return the text of a cell's outputs, without tags and what is embedded in them."""
    texts = (o.get("text", "") + "".join(o.get("data", {}).values()) for o in cell.outputs)
    return re.sub(r"<[^>]*>", " ", EMBEDDED.sub("", "\n".join(texts)))


def faults_of_teaching(text):
    """Yield what a reader would miss."""
    minutes = MINUTES.search(text)
    if not minutes or int(minutes[1]) > LONGEST_RUN:
        yield "no minutes, or too many"
    if not re.search(r"^> \*\*In the paper", text, re.MULTILINE):
        yield "nothing from the paper"
    exercises = re.split(r"^\*\*Exercise \d+", text, flags=re.MULTILINE)[1:]
    if len(exercises) < 3 or any("<details>" not in exercise for exercise in exercises):
        yield "fewer than three exercises, or one without its solution"
    if text.count("<details>") != text.count("</details>"):
        yield "a solution that is not closed"
    asked = SELF_TEST.search(text)
    if not asked or "<details>" not in text[asked.end() :]:
        yield "no self-test"


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


def wav(seconds=1.0):
    """Return a WAV file of a tone, base64."""
    file = io.BytesIO()
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 16_000)) / 16_000)
    soundfile.write(file, tone, 16_000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


BREAK = {
    "too few checked cells": unmark,
    "a checked cell without output": lambda n: checked(n).update(outputs=[]),
    "a checked cell that shows more than text": lambda n: show(n, text_html="<audio>"),
    "not run from top to bottom": lambda n: code_cells(n)[1].update(execution_count=99),
    "a mark that is not in the first line": lambda n: replace(n, "\nimport", f"\n{MARK}\nimport"),
    "a long cell": lambda n: code_cells(n)[-1].update(source="x = 1\n" * 26),
    "not made by make notebooks": lambda n: show(n, text_html=f"data:audio/wav;base64,{wav()}"),
    "too large": lambda n: say(n, "a lot " * 60_000),
    "an error": lambda n: checked(n).outputs.append(nbformat.v4.new_output("error", evalue="1")),
    "an absolute path": lambda n: say(n, "saved to /home/somebody/model"),
    "no minutes, or too many": lambda n: replace(n, "about . minute", "about 9 minute"),
    "nothing from the paper": lambda n: replace(n, "In the paper", "Somewhere"),
    "fewer than three exercises, or one without its solution": lambda n: replace(
        n, "<details>", ""
    ),
    "a solution that is not closed": lambda n: replace(n, "</details>", ""),
    "no self-test": lambda n: replace(n, "elf-test", "elf"),
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


# --- making them ----------------------------------------------------------------------------------


def output(text="", **data):
    if text:
        return nbformat.v4.new_output("stream", name="stdout", text=text)
    data = {k.replace("_", "/", 1): v for k, v in data.items()}
    return nbformat.v4.new_output("display_data", data)


def notebook_of(*outputs, source="1"):
    cell = nbformat.v4.new_code_cell(source, execution_count=7, outputs=list(outputs), id="one")
    return nbformat.v4.new_notebook(cells=[cell])


def png(width):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (50, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_text_counts_small_pictures_and_short_sounds_are_kept():
    player = f"<audio src='data:audio/wav;base64,{wav()}'></audio>"
    warning = nbformat.v4.new_output("stream", name="stderr", text="a warning")
    made = making.keep(
        notebook_of(
            output("a\n"), output("b\n"), warning, output(text_html=player),
            output(image_png=png(3_000), text_plain="<Figure at 0x7f01>"),
        ),
        BEST,
    )  # fmt: skip
    text, sound, picture = made.cells[0].outputs
    assert made.cells[0].execution_count == 7 and text.text == "a\nb\n"
    ogg = base64.b64decode(re.search(r"data:audio/ogg;base64,([^']+)'", sound.data["text/html"])[1])
    samples, rate = soundfile.read(io.BytesIO(ogg))
    assert (len(samples), rate) == (16_000, 16_000) and len(ogg) < 6_000
    assert 0.27 < np.abs(samples).max() < 0.33
    found = Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"])))
    assert (found.mode, found.width) == ("P", BEST.width)
    assert picture.data["text/plain"] == "<Figure>"
    assert making.keep(made, BEST) == made


def test_made_twice_is_the_same():
    loud = [notebook_of(output(text_html=f"data:audio/wav;base64,{wav()}")) for _ in range(2)]
    first, second = (making.keep(notebook, BEST) for notebook in loud)
    assert first == second


@pytest.mark.parametrize(
    ("source", "before", "after", "kept"),
    [
        ("time.perf_counter()", "9.5 s, 1e-3", "12 s, 2.5e-4", "9.5 s, 1e-3"),
        ("time.perf_counter()", "9 s", "9 samples", "9 samples"),
        ("loss()", "9.5 nats", "8.5 nats", "8.5 nats"),
    ],
)
def test_times_alone_change_nothing(source, before, after, kept):
    old, new = (notebook_of(output(text), source=source) for text in (before, after))
    assert making.steady(new, old).cells[0].outputs[0].text == kept


def test_what_is_too_large_is_said_and_not_written(tmp_path, capsys):
    path, small = tmp_path / "loud.ipynb", notebook_of(source="print('a lot ' * 60_000)")
    nbformat.write(small, path)
    before = path.read_bytes()
    assert making.main([str(path)]) == 1
    assert "loud.ipynb: over 345 KB" in capsys.readouterr().err
    assert path.read_bytes() == before


# --- what only notebooks use ----------------------------------------------------------------------


def test_players_have_titles_and_do_not_mind_loud_sounds():
    shown = players.play({"a < b": np.array([0.0, 2.0, -2.0]), "quiet": np.zeros(10)}).data
    assert "a &lt; b" in shown and shown.count("<audio") == 2


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


def test_spectrograms_have_a_place_each():
    figure = plots.spectrograms({name: np.zeros(8_000) for name in "abcd"}, columns=3)
    shown = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert shown == ["a", "b", "c", "d", ""]  # the last one is the colour bar


def test_bars_stand_beside_each_other():
    axes = figures.bars(
        {"a": {"x": 0.5, "y": 1}, "b": {"x": 0.2, "y": 0}}, "part", chance=[0.3]
    ).axes[0]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert all(left[1] <= right[0] for left, right in zip(spans, spans[1:], strict=False))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["x", "y"]
    assert sorted(bar.get_height() for bar in axes.patches) == [0, 0.2, 0.5, 1]


def test_log_is_drawn_as_it_grows(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "display", lambda *_, **__: SimpleNamespace(update=drawn.append))
    show = figures.live(("a", "b"))
    show({"step": 10, "a": 5.0, "classifier": 0.7})
    show({"step": 10, "nats": {"a": 4.0, "b": 4.0}, "nats_wrong_latent": {"a": 4.5, "b": 4.0}})
    reconstruction, classifier, cost = drawn[-1].axes
    assert len(drawn) == 2
    assert [list(line.get_ydata()) for line in cost.get_lines()] == [[0.5], [0.0], [0, 0]]
    assert list(reconstruction.get_lines()[0].get_ydata()) == [5.0]
    assert list(classifier.get_lines()[0].get_ydata()) == [0.7]


def test_bars_of_one_name_stand_beside_each_other():
    axes = figures.named_bars({"a": {"x": 1, "y": 2}, "b": {"y": 3}}, "title", "dB").axes[0]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert [bar.get_height() for bar in axes.patches] == [1, 2, 3]
    assert all(end <= start + 1e-9 for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_a_matrix_has_its_names():
    axes = figures.matrix(np.eye(2), ["a", "b"], ["c", "d"], "title", "dB").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
