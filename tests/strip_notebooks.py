"""Strip notebooks for the repository: keep text and execution counts, remove pictures and sounds.

    jupyter execute --inplace notebooks/*.ipynb
    python tests/strip_notebooks.py notebooks/*.ipynb

A notebook must have been run from top to bottom: nbval never compares a cell without a count.
"""

import sys
from pathlib import Path

import nbformat

KEPT_METADATA = ("kernelspec", "language_info")


def strip(notebook):
    """Return a copy with plain text outputs only, and without traces of the machine."""
    notebook = nbformat.from_dict(notebook)
    known = {name: notebook.metadata[name] for name in KEPT_METADATA if name in notebook.metadata}
    known["language_info"] = {"name": "python"}  # without the version of the author's Python
    notebook.metadata = nbformat.from_dict(known)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = _merged([output for output in cell.outputs if _is_text(output)])
    return notebook


def _is_text(output):
    if output.output_type == "stream":
        return output.name == "stdout"
    return output.output_type == "error" or set(output.data) == {"text/plain"}


def _merged(outputs):
    """Join what was printed: where a stream is cut depends on the moment."""
    merged = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream":
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        text = nbformat.writes(strip(nbformat.read(path, as_version=4)))
        path.write_text(text + "\n", encoding="utf-8")
