"""Write the repository's address, which stands in pyproject.toml, into notebooks and README.

    python scripts/repository.py

Every notebook gets the same first code cell, which sets up Colab, and below its title a badge that
opens it there; so does the README, where it has the line ``<!-- badge -->``. Badges are for
addresses on GitHub. To do it again changes nothing.
"""

import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
OPEN = "https://colab.research.google.com/github/{project}/blob/main/notebooks/{name}"
CELL = """\
# On Google Colab this cell fetches umtlib and installs it. Anywhere else it does nothing.
REPOSITORY = "{address}"  # as `git clone` takes it; scripts/repository.py writes it

import os
import sys

if "google.colab" in sys.modules and not REPOSITORY:
    print("Write the address of umtlib's repository between the quotes above, and run this again.")
elif "google.colab" in sys.modules:
    if not os.path.exists("../umtlib/notebook/colab.py"):
        if not os.path.exists("umtlib"):
            !git clone --quiet --depth 1 "$REPOSITORY" umtlib
        %cd -q umtlib/notebooks
    sys.path.insert(0, os.path.abspath(".."))
    from umtlib.notebook import colab

    for line in colab.set_up():
        print(line)"""


def address() -> str:
    """Return the address that pyproject.toml names; empty, if there is none yet."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = settings["tool"]["umtlib"]["repository"]
    if re.search(r"[\"\\$`\s]", found):
        sys.exit(f"pyproject.toml: tool.umtlib.repository = {found!r} is no address")
    return found


def badge(where: str, name: str) -> str:
    """Return the Markdown that opens a notebook in Colab; empty, if it is not on GitHub."""
    project = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", where)
    return f"{BADGE}({OPEN.format(project=project[1], name=name)})" if project else ""


def notebook(text: str, name: str, where: str) -> str:
    """Return a notebook's text with first cell and badge."""
    content = nbformat.reads(text, as_version=4)
    title, first = (
        next(cell for cell in content.cells if cell.cell_type == kind)
        for kind in ("markdown", "code")
    )
    lines = [line for line in title.source.split("\n") if not line.startswith(BADGE)]
    if wanted := badge(where, name):
        lines[1:] = ["", wanted, *lines[1:]]
    title.source = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    if "google.colab" not in first.source:
        sys.exit(f"{name}: the first code cell is not the one that sets up Colab")
    first.source = CELL.format(address=where)
    return nbformat.writes(content) + "\n"


def readme(text: str, where: str) -> str:
    """Return the README with its badge after the mark, if it has one."""
    wanted = badge(where, "01_quickstart.ipynb")
    return re.sub(r"<!-- badge -->.*", lambda _: f"<!-- badge --> {wanted}".rstrip(), text)


def main() -> None:
    """Write all files."""
    where = address()
    for path in [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        is_notebook = path.suffix == ".ipynb"
        wanted = notebook(text, path.name, where) if is_notebook else readme(text, where)
        if text != wanted:
            path.write_text(wanted, encoding="utf-8")
            print(f"written: {path.name}")


if __name__ == "__main__":
    main()
