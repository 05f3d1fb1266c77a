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
UNFOLD_ALL = """
const seen = (box) => [...box.children].slice(1).some((part) => part.checkVisibility());
return [...document.querySelectorAll("article details")].map((box) => {
    const before = seen(box);
    box.querySelector("summary").click();
    return !before && seen(box);
});
"""


@pytest.fixture(scope="module")
def address(site):
    """The site's, served."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser, address):
    browser.get_log("browser")
    return Page(browser, (None, address))


@pytest.mark.parametrize("name", COURSE)
def test_every_player_plays_and_every_solution_unfolds(page, name):
    page.browser.get(f"{page.address}/notebooks/{name}.html")
    page.find("h1").click()  # no page may play before it is touched
    sounds, failed = page.browser.execute_async_script(PLAY_ALL)
    assert sounds > 0 and failed == []
    unfolded = page.script(UNFOLD_ALL)
    assert unfolded and all(unfolded)
    assert page.faults() == []


def test_search(page):
    page.browser.get(f"{page.address}/search.html?q=receptive+field")
    page.find("#search-results li a").click()
    until(lambda: "receptive field" in page.text().lower(), "the page that was found")
    assert page.faults() == []
