"""The course's site is whole: its links lead somewhere, and it needs no network."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

pytest.importorskip("myst_nb", reason="pip install '.[site]' to test the site")
pytest.importorskip("furo")
pytest.importorskip("latex2mathml")

import conf
import repository
from sphinx.cmd.build import main as sphinx_build

ROOT = Path(__file__).parents[1]
COURSE = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Page(HTMLParser):
    """What a page points at, what can be pointed at in it, and its tags."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names, self.fetched, self.tags = [], {""}, [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self.names |= {attributes.get("id", ""), attributes.get("name", "")}
        source = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
        self.fetched += [source] if source else []
        self.links += [attributes["href"]] if tag == "a" and "href" in attributes else []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    assert sphinx_build(["-q", "-c", str(ROOT / "docs"), str(ROOT), str(out)]) == 0
    return {path: Page(path) for path in out.rglob("*.html")}


def test_no_internal_link_is_dead(site):
    dead = []
    for path, page in site.items():
        for link in [*page.links, *page.fetched]:
            if link.startswith(("http:", "https:", "mailto:", "data:")):
                continue
            target, anchor = urldefrag(link.split("?")[0] if "#" not in link else link)
            file = (path.parent / unquote(target)).resolve() if target else path
            known = site[file].names if file in site else {"", anchor}
            if not file.is_file() or unquote(anchor) not in known:
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_nothing_is_fetched_from_elsewhere(site):
    fetched = {link for page in site.values() for link in page.fetched}
    assert [link for link in fetched if link.startswith(("http", "//"))] == []


def test_every_notebook_is_there_with_its_sounds_solutions_and_formulas(site):
    pages = {path.stem: page for path, page in site.items()}
    for path in COURSE:
        text, page = path.read_text("utf-8"), pages[path.stem]
        assert page.tags.count("audio") == text.count("<audio"), path.name
        assert page.tags.count("details") >= text.count("<details>"), path.name
        assert "$$" not in text or "math" in page.tags, path.name


def test_a_badge_becomes_words():
    source = [repository.badge("https://github.com/o/n", "01_quickstart.ipynb")]
    conf.prepare(None, "notebooks/01_quickstart", source)
    assert source[0].startswith("[Open in Colab](https://colab.research.google.com/github/o/n/")
