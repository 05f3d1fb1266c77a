"""The course as a static site, made by `make site`: Sphinx reads it from the committed notebooks.

The source folder is the repository itself, so the links between notebooks and pages are the ones
that work on GitHub too. Formulas become MathML and the theme brings all it needs: the site works
without a network.
"""

import re
import tomllib
from pathlib import Path

from ipython_pygments_lexers import IPython3Lexer
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
COLAB = "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb"
BADGE = '<p class="colab"><a href="{}">Open in Colab</a></p>'
TOC = "\n```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n"

project = "umtlib"
html_title = "Music translation: a course"
root_doc = "notebooks/README"
include_patterns = ["notebooks/*", "docs/*.md", "data/README.md", "CONTRIBUTING.md", "README.md"]
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
html_theme = "furo"
pygments_dark_style = "monokai"
html_copy_source = html_show_sourcelink = html_show_sphinx = html_show_copyright = False
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True}
# A folder is no page; a file that is no page is taken along.
suppress_warnings = ["myst.xref_missing", "myst.header"]


def repository() -> str:
    """Return ``owner/name`` of the address in pyproject.toml, or nothing while there is none."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = re.search(
        r"github\.com/([^/]+/[^/]+?)(\.git)?/?$",
        settings["project"].get("urls", {}).get("Repository", ""),
    )
    return found[1] if found else ""


def add_contents(app, name: str, source: list[str]) -> None:
    """Add to the course's first page what GitHub does not need: an order of the pages."""
    if name == root_doc:
        course = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
        pages = sorted(f"/docs/{path.stem}" for path in (ROOT / "docs").glob("*.md"))
        more = ["/README", "/CONTRIBUTING", "/data/README", *pages]
        source[0] += TOC.format("Notebooks", "\n".join(course))
        source[0] += TOC.format("More to read", "\n".join(more))


def add_badge(app, page: str, template, context: dict, doctree) -> None:
    """Put "open in Colab" above each notebook, if the repository has an address."""
    folder, _, name = page.partition("/")
    if folder == "notebooks" and (ROOT / f"{page}.ipynb").exists() and repository():
        context["body"] = BADGE.format(COLAB.format(repository(), name)) + context["body"]


def add_formula(translator, node) -> None:
    """Write a formula, inline or on a line of its own."""
    from docutils import nodes

    shown = "inline" if node.tagname == "math" else "block"
    translator.body.append(convert(node.astext(), display=shown))
    raise nodes.SkipNode


def setup(app) -> dict:
    """Connect all this to Sphinx."""
    app.add_lexer("python", IPython3Lexer)  # cells also have lines for the shell
    app.connect("source-read", add_contents)
    app.connect("html-page-context", add_badge)
    app.add_html_math_renderer("mathml", (add_formula, None), (add_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
