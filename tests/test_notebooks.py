"""The notebooks keep the rules of the house; that they run and are right is nbval's to check."""

import ast
import base64
import io
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import soundfile
from course import SELF_TEST
from nbformat import v4
from PIL import Image

import notebooks as making
from conftest import tone
from umtlib.notebook import figures, plots
from umtlib.notebook.gallery import gallery

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
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


every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@every_notebook
def test_cells_are_short_checked_and_run_from_top_to_bottom(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    checked = [cell for cell in code if cell.source.startswith(making.MARK)]
    assert len(checked) >= FEWEST_CHECKS and all(cell.outputs for cell in checked)
    shown = [output.get("data", {}) for cell in checked for output in cell.outputs]
    assert all(data.keys() <= {"text/plain"} for data in shown)
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    for cell in code:
        _, *rest = cell.source.splitlines()
        assert len(rest) < LONGEST_CELL
        assert not any(making.MARK in line for line in rest), "nbval would check the cell, we not"


@every_notebook
def test_outputs_are_as_they_are_made_and_tell_nothing_of_the_machine(path):
    notebook = read(path)
    assert making.keep(notebook, BEST) == notebook, "run make notebooks"
    assert len(nbformat.writes(notebook)) <= making.LIMIT
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert all(output.output_type != "error" for output in outputs)
    texts = (o.get("text", "") + "".join(o.get("data", {}).values()) for o in outputs)
    assert not ABSOLUTE.search(re.sub(r"<[^>]*>", " ", EMBEDDED.sub("", "\n".join(texts))))


@pytest.mark.parametrize(
    ("text", "absolute"),
    [("saved to /home/somebody/model", True), ("C:\\x", True), ("1/2 of 3/4", False),
     ("https://a.org/b/c", False), ("data/mini/train", False), ("a / b / c", False)],
)  # fmt: skip
def test_what_is_an_absolute_path(text, absolute):
    assert bool(ABSOLUTE.search(text)) == absolute


@every_notebook
def test_a_reader_is_taught(path):
    cells = read(path).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert int(MINUTES.search(text)[1]) <= LONGEST_RUN
    assert re.search(r"^> \*\*In the paper", text, re.MULTILINE)
    exercises = re.split(r"^\*\*Exercise \d+", text, flags=re.MULTILINE)[1:]
    assert len(exercises) >= 3 and all("<details>" in exercise for exercise in exercises)
    assert text.count("<details>") == text.count("</details>")
    assert "<details>" in text[SELF_TEST.search(text).end() :]
    assert len(FENCED.sub("", text)) >= 1.2 * sum(map(len, code[1:])), "too little prose"
    for source in [*code, *FENCED.findall(text)]:
        ast.parse(re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE))


def test_notebooks_are_in_order():
    names = [path.name for path in PATHS]
    assert [name[:3] for name in names] == [f"{n:02}_" for n in range(1, len(names) + 1)]
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[.*?\]\((\w+\.ipynb)\)", table, re.MULTILINE) == names
    for path, following in zip(PATHS, [*names[1:], "README.md"], strict=True):
        assert f"]({following})" in read(path).cells[-1].source, f"{path.name} does not lead on"


# --- making them ----------------------------------------------------------------------------------


def notebook_of(*outputs, source="1"):
    cell = v4.new_code_cell(source, execution_count=7, outputs=list(outputs), id="one")
    kernel = {"name": "python3", "display_name": "Python 3"}
    return v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel, "widgets": {}})


def said(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def test_text_counts_small_pictures_and_short_sounds_are_kept():
    wav, png = io.BytesIO(), io.BytesIO()
    soundfile.write(wav, tone(1), 16_000, format="WAV")
    noise = np.random.default_rng(0).integers(0, 255, (50, 3_000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(png, format="PNG")
    wav, png = (base64.b64encode(file.getvalue()).decode() for file in (wav, png))
    player = {"text/html": f"<audio src='data:audio/wav;base64,{wav}'></audio>"}
    drawn = {"image/png": png, "text/plain": "<Figure at 0x7f01>"}
    shown = [v4.new_output("display_data", data) for data in (player, drawn)]
    ran = notebook_of(said("a\n"), said("b\n"), said("a warning", "stderr"), *shown)
    made = making.keep(ran, BEST)
    assert made.metadata.keys() == {"kernelspec", "language_info"}
    text, sound, picture = made.cells[0].outputs
    assert made.cells[0].execution_count == 7 and text.text == "a\nb\n"
    ogg = base64.b64decode(re.search(r"data:audio/ogg;base64,([^']+)'", sound.data["text/html"])[1])
    samples, rate = soundfile.read(io.BytesIO(ogg))
    assert (len(samples), rate) == (16_000, 16_000) and len(ogg) < 6_000
    assert 0.27 < np.abs(samples).max() < 0.33
    found = Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"])))
    assert (found.mode, found.width) == ("P", BEST.width)
    assert picture.data["text/plain"] == "<Figure>"
    assert making.keep(made, BEST) == made == making.keep(ran, BEST)


@pytest.mark.parametrize(
    ("source", "before", "after", "kept"),
    [
        ("time.perf_counter()", "9.5 s, 1e-3", "12 s, 2.5e-4", "9.5 s, 1e-3"),
        ("time.perf_counter()", "9 s", "9 samples", "9 samples"),
        ("loss()", "9.5 nats", "8.5 nats", "8.5 nats"),
    ],
)
def test_times_alone_change_nothing(source, before, after, kept):
    old, new = (notebook_of(said(text), source=source) for text in (before, after))
    assert making.steady(new, old).cells[0].outputs[0].text == kept


def test_new_sounds_are_kept_whatever_the_times():
    def cell(sound, text):
        player = v4.new_output("display_data", {"text/html": f"<audio src='{sound}'></audio>"})
        return notebook_of(said(text), player, source="time.perf_counter()")

    for sound, kept in (("a", "1 s"), ("b", "2 s")):
        made = making.steady(cell(sound, "2 s"), cell("a", "1 s")).cells[0].outputs
        assert made[0].text == kept and sound in made[1].data["text/html"]


def test_what_is_too_large_is_said_and_not_written(tmp_path, capsys):
    path = tmp_path / "loud.ipynb"
    nbformat.write(notebook_of(source=f"print('a lot ' * {making.LIMIT // 6})"), path)
    before = path.read_bytes()
    assert making.main([str(path)]) == 1
    assert f"loud.ipynb: over {making.LIMIT // 1000} KB" in capsys.readouterr().err
    assert path.read_bytes() == before


# --- what only notebooks use ----------------------------------------------------------------------


def test_connections_reach_the_receptive_field():
    axes = figures.connections([1, 2, 4], samples=8).axes[0]
    oldest = min(line.get_xdata()[0] for line in axes.get_lines())
    assert oldest == 1 - 8
    assert len(axes.get_lines()) == 2 + 4 + 8


def test_latent_choice_and_matrix_are_drawn():
    assert figures.latent(np.eye(4), 800, [0.1]).axes[0].get_xlim() == (0, 0.2)
    below = figures.choice(np.full(256, 1 / 256), 0.5, 3).axes[1]
    assert "code 3" in [text.get_text() for text in below.texts]
    axes = figures.matrix(np.eye(2), ["a", "b"], ["c", "d"], "title", "dB").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_spectrograms_have_a_place_each():
    figure = plots.spectrograms({name: np.zeros(8_000) for name in "abcd"}, columns=3)
    shown = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert shown == ["a", "b", "c", "d", ""]  # the last one is the colour bar


def test_bars_stand_beside_each_other():
    for axes, heights in (
        (figures.bars({"a": {"x": 0.5, "y": 1}, "b": {"x": 0.2, "y": 0}}, "part").axes[0],
         [0.5, 1, 0.2, 0]),
        (figures.named_bars({"a": {"x": 1, "y": 2}, "b": {"y": 3}}, "title", "dB").axes[0],
         [1, 2, 3]),
    ):  # fmt: skip
        spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
        assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(spans))
        assert [text.get_text() for text in axes.get_xticklabels()] == ["x", "y"]
        assert [bar.get_height() for bar in axes.patches] == heights


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


def test_a_gallery_has_21_sounds_at_one_level():
    sounds = dict(gallery(FOLDER.parent / "data" / "mini", 0.5))
    assert len(sounds) == 21 and {"whistle", "opera", "drums", "speech", "bird"} < set(sounds)
    levels = [20 * np.log10(np.sqrt(np.mean(x**2))) for x in sounds.values()]
    assert all(x.shape == (8_000,) and x.dtype == np.float32 for x in sounds.values())
    # What is loud for a moment only is at the level then.
    assert min(levels) > -27 and max(levels) < -16
    likeness = np.corrcoef(np.stack([*sounds.values()])) - np.eye(21)
    assert np.abs(likeness).max() < 0.9  # the aria is sung over the orchestra
