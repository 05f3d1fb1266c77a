"""A browser without a screen before a JupyterLab of ours, with a microphone that plays a file."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
except ImportError:
    collect_ignore_glob = ["test_*"]

REPOSITORY = Path(__file__).parents[2]
WHISTLE = REPOSITORY / "data/examples/whistle.wav"
LONGEST, IN_ALL = 240, 600  # seconds for anything, and for a notebook, on a busy machine
NO_NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
RUN_ALL = "jupyterapp.commands.execute('notebook:run-all-cells')"
CONTEXT = "window.jupyterapp?.shell?.currentWidget?.context"
SESSION = f"{CONTEXT}?.sessionContext"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A JupyterLab: its folder and its address."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "ServerApp.token": "", "ServerApp.password": "", "ServerApp.port": port,
        "ServerApp.open_browser": False, "ServerApp.root_dir": folder, "ServerApp.port_retries": 0,
        "ServerApp.allow_root": True, "LabApp.expose_app_in_browser": True,
    }  # fmt: skip
    own = folder / ".own"
    (own / NO_NEWS).parent.mkdir(parents=True)
    (own / NO_NEWS).write_text('{"fetchNews": "false", "checkForUpdates": false}')
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        "JUPYTERLAB_SETTINGS_DIR": str(own), "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyter", "lab", *(f"--{k}={v}" for k, v in settings.items())]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: answers(port), "JupyterLab")
        yield folder, f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(60)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True


def until(found, what, longest=LONGEST):
    """Wait for something, and return it.

    A page changes while it is looked at: what was found may be gone, covered or new a moment later.
    """
    end, said = time.monotonic() + longest, ""
    while time.monotonic() < end:
        try:
            if value := found():
                return value
        except WebDriverException as error:
            said = f" ({type(error).__name__})"
        time.sleep(0.1)
    raise AssertionError(f"waited {longest} s for: {what}{said}")


@pytest.fixture(scope="session")
def browser():
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not (driver and chromium):
        pytest.skip("no Chromium, or no driver of it: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
        "--window-size=1300,1500", "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={WHISTLE}",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as made:
        made.set_script_timeout(LONGEST)
        yield made


class Page:
    """A notebook in the browser."""

    def __init__(self, browser, server):
        self.browser, (self.folder, self.address) = browser, server

    def open(self, name, *cells):
        """Write a notebook of these cells, open it and begin to run it."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        self.visit(f"{name}.ipynb?reset")
        self.script(RUN_ALL)

    def course(self, name):
        """Open a copy of a notebook of the course, in a copy of the repository's folders."""
        (self.folder / "notebooks").mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / f"notebooks/{name}.ipynb", self.folder / "notebooks")
        for beside in ("data", "docs"):
            if not (self.folder / beside).exists():
                (self.folder / beside).symlink_to(REPOSITORY / beside)
        self.visit(f"notebooks/{name}.ipynb?reset")

    def visit(self, name):
        self.browser.get(f"{self.address}/lab/tree/{name}")
        self.ready()

    def ready(self):
        status = f"return {SESSION}?.session?.kernel?.status === 'idle'"
        until(lambda: self.script(status), "a kernel")

    def run(self):
        """Run all cells to the end; return what was not run, or failed, and why."""
        self.script(f"window.ran = false; {RUN_ALL}.finally(() => {{ window.ran = true }})")
        until(lambda: self.script("return window.ran"), "the last cell", IN_ALL)
        return self.script("""
            const cells = jupyterapp.shell.currentWidget.content.widgets.filter(
                (cell) => cell.model.type === "code" && cell.model.sharedModel.getSource());
            const failed = (cell) =>
                cell.model.outputs.toJSON().find((output) => output.output_type === "error");
            return cells.filter((cell) => failed(cell) || !cell.model.executionCount).map(
                (cell) => [cell.model.sharedModel.getSource(), failed(cell)?.evalue]);
        """)

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def find(self, selector, holds=lambda element: element.is_displayed()):
        """Wait for an element; what is far off the screen is not displayed."""

        def found():
            return next((e for e in self.all(selector) if holds(self.show(e))), None)

        return until(found, selector)

    def command(self, name, **arguments):
        """Do what one of JupyterLab's menus does."""
        self.script(f"jupyterapp.commands.execute('{name}', arguments[0])", arguments)

    def click(self, name, where=".umt"):
        """Click the first button that has this name."""
        button = f"{where} button[aria-label='{name}']"
        until(lambda: self.find(button).click() or True, f"the button {name}")

    def show(self, element):
        self.script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        return element

    def player(self, sounds, where=".umt"):
        """Wait for a player of so many sounds."""
        return self.find(f"{where} .umt-player[data-sounds='{sounds}']")

    def switch(self, player, digit):
        """Play in a loop and choose another sound by its digit: it goes on at the same moment."""
        if not player.find_element("css selector", "input[type=checkbox]").is_selected():
            player.send_keys("l")
        if data(player)["playing"] == "false":
            player.send_keys(" ")
        start = position(player)
        until(lambda: position(player) != start, "the cursor")
        before, at, clock = data(player), position(player), time.monotonic()
        player.send_keys(str(digit))
        after, now = data(player), position(player)
        assert after["chosen"] == str(digit - 1) != before["chosen"]
        assert before["began"] == after["began"] and after["playing"] == "true"
        assert (now - at) % slider(player, "max") < time.monotonic() - clock + 0.1

    def text(self, where="body"):
        for element in self.all(where)[:1] if where != "body" else []:
            self.show(element)  # what is far off the screen has no text
        return self.script("return document.querySelector(arguments[0])?.innerText ?? ''", where)

    def says(self, words, where="body"):
        """Wait until the page says something."""
        until(lambda: words in self.text(where), words)

    def is_well(self):
        """Assert that the console is quiet, and that all that is used has a name to be read out."""
        used = ":is(button, input, select, progress, meter), .umt-player"

        def are_named(number):
            root = self.show(self.all(".umt")[number])  # what is far off the screen has no names
            shown = [e for e in root.find_elements("css selector", used) if e.is_displayed()]
            return all(element.accessible_name for element in shown)

        for number in range(len(self.all(".umt"))):
            until(functools.partial(are_named, number), f"all names in widget {number}", 30)
        assert self.faults() == []

    def faults(self):
        """What the console complained of, less what JupyterLab itself is known to say."""
        known = ("favicon", "/api/news", "/lsp/", "service worker", "beforeunload", "removeChild")
        return [
            line["message"]
            for line in self.browser.get_log("browser")
            if line["level"] == "SEVERE" and not any(word in line["message"] for word in known)
        ]


def data(player):
    return player.parent.execute_script("return {...arguments[0].dataset}", player)


def slider(player, what):
    return float(player.find_element("css selector", "input[type=range]").get_attribute(what))


def position(player):
    return slider(player, "value")


@pytest.fixture
def page(browser, server, request):
    browser.get_log("browser")
    page = Page(browser, server)
    yield page
    if folder := os.environ.get("UMT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{request.node.name}.png"))
    page.script(f"{SESSION}?.shutdown()")
