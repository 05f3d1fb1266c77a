"""The course's site is whole: its links lead somewhere, and it needs no network."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import repository

conf = pytest.importorskip("conf", reason="pip install '.[site]' to test the site")
ROOT = Path(__file__).parents[1]
COURSE = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Page(HTMLParser):
    """What a page points at, what can be pointed at in it, and its tags."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names, self.fetched, self.tags = [], {""}, [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("id", "name"):
                self.names.add(value)
            elif name == "src" or (name == "href" and tag == "link"):
                self.fetched.append(value)
            elif name == "href" and tag == "a":
                self.links.append(value)


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_no_internal_link_is_dead(pages):
    dead = []
    for path, page in pages.items():
        for link in page.links + page.fetched:
            scheme, host, target, _, anchor = (unquote(part) for part in urlsplit(link))
            file = (path.parent / target).resolve() if target else path
            names = pages[file].names if file in pages else {anchor}
            if not (scheme or host or file.is_file() and anchor in names):
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_nothing_is_fetched_from_elsewhere(pages):
    fetched = {link for page in pages.values() for link in page.fetched}
    assert [link for link in fetched if link.startswith(("http", "//"))] == []


def test_every_notebook_is_there_with_its_sounds_solutions_and_formulas(pages):
    by_name = {path.stem: page for path, page in pages.items()}
    for path in COURSE:
        text, page = path.read_text("utf-8"), by_name[path.stem]
        assert page.tags.count("audio") == text.count("<audio"), path.name
        assert page.tags.count("details") >= text.count("<details>"), path.name
        assert "$$" not in text or "math" in page.tags, path.name


def test_a_badge_becomes_words():
    source = [repository.badge("https://github.com/o/n", "01_quickstart.ipynb")]
    conf.prepare(None, "notebooks/01_quickstart", source)
    assert source[0].startswith("[Open in Colab](https://colab.research.google.com/github/o/n/")
