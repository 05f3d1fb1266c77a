"""The course as a static site, made by `make site`: Sphinx reads it from the committed notebooks.

The source folder is the repository itself, so the links between notebooks and pages are the ones
that work on GitHub too. Formulas become MathML and the theme brings all it needs: the site works
without a network.
"""

import re
from pathlib import Path

from ipython_pygments_lexers import IPython3Lexer
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
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


def prepare(app, name: str, source: list[str]) -> None:
    """Add an order of the pages to the first one; let words stand for a badge, which is elsewhere."""
    source[0] = re.sub(r"!\[(Open in Colab)\]\(\S+?\)", r"\1", source[0])
    if name == root_doc:
        course = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
        pages = sorted(f"/docs/{path.stem}" for path in (ROOT / "docs").glob("*.md"))
        more = ["/README", "/CONTRIBUTING", "/data/README", *pages]
        source[0] += TOC.format("Notebooks", "\n".join(course))
        source[0] += TOC.format("More to read", "\n".join(more))


def add_formula(translator, node) -> None:
    """Write a formula, inline or on a line of its own."""
    from docutils import nodes

    shown = "inline" if node.tagname == "math" else "block"
    translator.body.append(convert(node.astext(), display=shown))
    raise nodes.SkipNode


def setup(app) -> dict:
    """Connect all this to Sphinx."""
    app.add_lexer("python", IPython3Lexer)  # cells also have lines for the shell
    app.connect("source-read", prepare)
    app.add_html_math_renderer("mathml", (add_formula, None), (add_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
