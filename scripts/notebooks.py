"""Run the notebooks and keep what a reader sees and hears: text, small pictures, short sounds.

::

    make notebooks                                   # all of them
    python scripts/notebooks.py notebooks/06*.ipynb  # some

Every notebook is run from top to bottom in its own folder. Pictures become PNG with a palette,
sounds Ogg/Opus, and both as good as fits into ``LIMIT``. What is left is the same in every run on
one machine, but for times: a cell that reads a clock, or is tagged ``times``, keeps the output that
was committed if the new one sounds the same and differs in its numbers only.
"""

import argparse
import base64
import io
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbclient
import nbformat
import soundfile
from nbformat import v4
from PIL import Image

from umtlib.files import replacing
from umtlib.notebook.players import numbered

FOLDER = Path(__file__).parents[1] / "notebooks"
MARK = "# NBVAL_CHECK_OUTPUT"
LIMIT = 400_000  # bytes of a notebook: every remake stays in the clone for ever
TIMES = "times"  # the tag of a cell whose numbers differ from run to run
CLOCK = re.compile(r"\b(perf_counter|process_time|monotonic|translation\.speed)\b")
SHOWN = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png")
SOUND = re.compile(r"data:audio/(?:x-)?wav;base64,([A-Za-z0-9+/=\s]+)")
NUMBER = re.compile(r"\s*\d+(\.\d+)?(e[-+]?\d+)?")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Quality:
    """How well pictures and sounds are kept."""

    kilobits: int  # a second of sound
    width: int  # of a picture, in pixels, at most
    colours: int


BEST_FIRST = (
    Quality(24, 1000, 96),
    Quality(20, 900, 64),
    Quality(16, 800, 64),
    Quality(12, 750, 32),
    Quality(12, 600, 24),
    Quality(10, 560, 20),
)


def client(notebook, folder: Path) -> nbclient.NotebookClient:
    """Return what runs the cells of a notebook in a folder; an error in a cell is raised."""
    where = {"metadata": {"path": str(folder)}}
    return nbclient.NotebookClient(notebook, timeout=None, record_timing=False, resources=where)


def keep(notebook, quality: Quality):
    """Return a copy with what a reader sees and hears only, without traces of the machine."""
    notebook = nbformat.from_dict(notebook)
    language = {"language_info": {"name": "python"}}  # without the version of the author's Python
    kernel = {k: value for k, value in notebook.metadata.items() if k == "kernelspec"}
    notebook.metadata = nbformat.from_dict(kernel | language)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = _merged([_kept(output, quality) for output in cell.outputs])
    return notebook


def _kept(output, quality: Quality):
    """Return one output made small, or None if nothing of it is for a reader."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if output.output_type == "error":
        return output
    output.metadata = nbformat.from_dict({})
    data = {kind: output.data[kind] for kind in SHOWN if kind in output.data}
    if "image/png" in data:
        data["image/png"] = smaller_picture(data["image/png"], quality)
    if "text/html" in data:
        page = data["text/html"]
        data["text/html"] = SOUND.sub(lambda found: smaller_sound(found[1], quality), page)
    if "text/plain" in data:
        data["text/plain"] = ADDRESS.sub("", data["text/plain"])
    output.data = nbformat.from_dict(data)
    return output if data else None


def _merged(outputs):
    """Join what was printed: where a stream is cut depends on the moment."""
    merged = []
    for output in filter(None, outputs):
        if merged and output.output_type == merged[-1].output_type == "stream":
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def smaller_picture(encoded: str, quality: Quality) -> str:
    """Return a PNG with a palette, no wider than allowed, in base64; as it is if it is so."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if picture.mode == "P" and picture.width <= quality.width:
        return encoded.strip()
    picture = picture.convert("RGB")
    picture.thumbnail((quality.width, 10 * quality.width), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    # By coverage: the colours of a spectrogram's few bright lines count as much as its dark ground.
    few = picture.quantize(quality.colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(packed, format="PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def smaller_sound(wav: str, quality: Quality) -> str:
    """Return the address of Ogg/Opus that has a WAV file's sound; that is in base64, too."""
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(wav)), dtype="float32")
    level = 1 - (quality.kilobits - 6) / 250  # libsndfile's scale: 6 to 256 kbit/s
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate, format="OGG", subtype="OPUS", compression_level=level)
    return f"data:audio/ogg;base64,{base64.b64encode(numbered(packed.getvalue())).decode()}"


def steady(new, old):
    """Return ``new`` with the old outputs of cells whose times are all that has changed."""
    before = {cell.id: cell for cell in old.cells if cell.cell_type == "code"}
    for cell in new.cells:
        varies = TIMES in cell.metadata.get("tags", ()) or CLOCK.search(cell.source)
        known = before.get(cell.id)
        if known and varies and _but_for_numbers(cell) == _but_for_numbers(known):
            cell.outputs = known.outputs
    return new


def text(output) -> str:
    """Return what an output says in plain text."""
    return output.get("text", output.get("data", {}).get("text/plain", ""))


def _but_for_numbers(cell) -> list:
    """Return source and outputs, without numbers and without what pictures show."""
    shapes = [(sorted(o.get("data", {})), NUMBER.sub(" #", text(o))) for o in cell.outputs]
    pages = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
    return [cell.source, shapes, [page for page in pages if "<audio" in page]]


def committed(path: Path):
    """Return the notebook as it was committed, or an empty one."""
    show = ["git", "show", f"HEAD:./{path.name}"]
    found = subprocess.run(show, cwd=path.parent, capture_output=True, encoding="utf-8")
    return nbformat.reads(found.stdout, as_version=4) if found.stdout else v4.new_notebook()


def made(ran, old) -> str:
    """Return the file's text, in the best quality that fits; the smallest if none does."""
    for quality in BEST_FIRST:
        found = nbformat.writes(steady(keep(ran, quality), keep(old, quality))) + "\n"
        if len(found.encode()) <= LIMIT:
            break
    return found


def main(arguments: list[str] | None = None) -> int:
    """Make the notebooks that are named, or all; return how many are too large."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="by default all")
    parser.add_argument("--times", action="store_true", help="keep new times: on a quiet machine")
    options = parser.parse_args(arguments)
    paths = options.paths or sorted(FOLDER.glob("*.ipynb"))
    too_large = 0
    for path in paths:
        began, notebook = time.perf_counter(), nbformat.read(path, as_version=4)
        client(notebook, path.parent).execute()
        found = made(notebook, v4.new_notebook() if options.times else committed(path))
        size = len(found.encode())
        print(f"{path.name}: {time.perf_counter() - began:.0f} s, {size / 1000:.0f} KB")
        if size > LIMIT:
            print(f"{path}: over {LIMIT // 1000} KB: fewer or shorter sounds", file=sys.stderr)
            too_large += 1
            continue
        with replacing(path) as part:
            part.write_text(found, encoding="utf-8")
    return too_large


if __name__ == "__main__":
    sys.exit(main())
