"""The course's site as a reader meets it: its players, its search, its solutions."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .conftest import REPOSITORY, Page, until

COURSE = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
# Sounds are started one after the other, as by a hand, but not heard.
PLAY_ALL = """
const done = arguments[0], failed = [], all = [...document.querySelectorAll("audio")];
const play = async (sound) => {
    sound.muted = true;
    await sound.play();
    const end = Date.now() + 30000;
    while (!(sound.currentTime > 0)) {
        if (Date.now() > end) throw new Error("it does not begin");
        await new Promise((go) => setTimeout(go, 20));
    }
    sound.pause();
    if (!(sound.duration > 0.2)) throw new Error(`it lasts ${sound.duration} s`);
};
(async () => {
    for (const sound of all) {
        try { await play(sound); } catch (error) { failed.push(`${sound.ariaLabel}: ${error}`); }
    }
    done([all.length, failed]);
})();
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's address."""
    for name in ("myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(name, reason="pip install '.[site]' to test the site")
    from sphinx.cmd.build import main as build

    folder = tmp_path_factory.mktemp("site")
    assert build(["-q", "-c", str(REPOSITORY / "docs"), str(REPOSITORY), str(folder)]) == 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browser, site):
    browser.get_log("browser")
    return Page(browser, (None, site))


@pytest.mark.parametrize("name", COURSE)
def test_every_player_plays(page, name):
    page.browser.get(f"{page.address}/notebooks/{name}.html")
    page.find("h1").click()  # no page may play before it is touched
    sounds, failed = page.browser.execute_async_script(PLAY_ALL)
    assert sounds > 0 and failed == []
    assert page.faults() == []


def test_solutions_unfold(page):
    for name in COURSE:
        page.browser.get(f"{page.address}/notebooks/{name}.html")
        all_that_do = page.script("""
            const all = [...document.querySelectorAll("article details")];
            const seen = (box) => [...box.children].slice(1).some((part) => part.checkVisibility());
            return all.map((box) => {
                const before = seen(box);
                box.querySelector("summary").click();
                return !before && seen(box);
            });
        """)
        assert all_that_do and all(all_that_do), name
    page.show(page.all("article details")[0])
    page.picture("site-solution")


def test_search(page):
    page.browser.get(f"{page.address}/search.html?q=receptive+field")
    found = page.find("#search-results li a")
    page.picture("site-search")
    found.click()
    until(lambda: "receptive field" in page.text().lower(), "the page that was found")
    assert page.faults() == []


def test_light_and_dark(page):
    page.browser.get(f"{page.address}/notebooks/{COURSE[0]}.html")
    colours = set()
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        colours.add(page.script("return getComputedStyle(document.body).backgroundColor"))
        page.picture(f"site-{scheme}")
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(colours) == 2
