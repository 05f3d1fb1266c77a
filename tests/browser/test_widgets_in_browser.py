"""The widgets as a student meets them: JupyterLab, mouse, keyboard and microphone."""

import csv

from selenium.webdriver import ActionChains

from .conftest import CONTEXT, RUN_ALL, SESSION, WHISTLE, data, position, until

SOUNDS = """
import numpy as np
from umtlib.notebook import widgets
time = np.arange(320_000) / 16_000
low, high = (a * np.sin(2 * np.pi * f * time) for a, f in ((0.5, 220), (0.05, 880)))
"""
PLAYER = "p = widgets.Player({'low': low, 'high': high}, onsets=[0, 5, 10])\np"
MODEL = """
from dataclasses import replace
from umtlib import config, translator
from umtlib.notebook.translating import Translator
model = config.preset("tiny", ("flute", "drum")).model
model = replace(model, decoder=replace(model.decoder, layers=2))
model = translator.build(model).eval().requires_grad_(False)
"""


def test_player(page):
    page.open("player", SOUNDS, PLAYER, "p")
    first = page.player(2)
    until(lambda: len(page.all(".umt-player[data-sounds='2']")) == 2, "the second copy")
    view = first.find_element("css selector", ".umt-view")
    ActionChains(page.browser).click(view).perform()
    assert abs(position(first) - 10) < 0.2
    page.switch(first, 2)
    page.click("play")  # of the second copy: one at a time
    assert data(first)["playing"] == "false"
    ActionChains(page.browser).click_and_hold(view).move_by_offset(100, 0).release().perform()
    assert first.find_element("css selector", ".umt-loop").is_displayed()
    first.send_keys(" ")
    until(lambda: data(first)["playing"] == "true", "the loop")
    page.is_well()


def test_order_of_the_focus(page):
    """Tab goes through a player from the left to the right, and on to what comes after it."""
    page.open("focus", SOUNDS, "widgets.Player({'low': low, 'high': high})")
    page.player(2).send_keys("")
    seen = []
    for _ in range(8):
        ActionChains(page.browser).send_keys("\ue004").perform()  # Tab
        seen.append(page.browser.switch_to.active_element.accessible_name.strip())
    names = "1. low, play, position, loop, loop from here, loop to here, equally loud, "
    assert ", ".join(seen) == names + "download the chosen sound as WAV"


def test_reload_and_restart(page):
    page.open("reload", SOUNDS, PLAYER)
    page.player(2)
    page.command("docmanager:save")
    until(lambda: page.script(f"return !{CONTEXT}.model.dirty"), "the file")
    page.visit("reload.ipynb")
    page.player(2)  # it comes back from the kernel
    assert page.faults() == []
    page.script(f"{SESSION}.restartKernel()")
    page.says("The kernel was restarted")
    page.click("play")
    until(lambda: position(page.player(2)) > 0.3, "a sound without a kernel")
    page.script(RUN_ALL)
    until(lambda: "The kernel was restarted" not in page.text(), "the widget, once more")
    page.player(2)


def test_memory_of_the_page_is_bounded(page):
    """After the first ten translations, forty more change nothing."""

    def heap():
        page.browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        used = page.browser.execute_cdp_cmd("Runtime.getHeapUsage", {})
        parts = ("usedSize", "embedderHeapUsedSize", "backingStorageSize")
        return sum(used[part] for part in parts) / 2**20

    def translate(seed):
        """With another seed: the same sounds are not sent again."""
        box = page.find(".umt input[type=number]", lambda box: box.is_enabled())
        page.script(
            "arguments[0].dataset.sounds = ''; arguments[1].value = arguments[2];"
            "arguments[1].dispatchEvent(new Event('change'))",
            page.find(".umt-player"), box, seed,
        )  # fmt: skip
        page.click("translate")
        page.player(3)

    page.open("memory", SOUNDS, MODEL, "Translator(model, {'low': low[:8_000]})")
    page.says("will take about")
    sizes = []
    for seed in range(50):
        translate(seed)
        if seed in (9, 49):
            sizes.append(heap())
    assert sizes[1] < sizes[0] + 2, "MB; the sounds alone are 4"
    assert page.faults() == []


def test_recorder(page):
    page.open("recorder", SOUNDS, "r = widgets.Recorder(seconds=2)\nr", "widgets.Recorder()")
    page.click("record from the microphone")
    page.says("of 2 s")
    page.says("recording: 2.0 s")
    assert "nothing is to be heard" not in page.text()
    page.player(1)
    page.all(".umt input[type=file]")[1].send_keys(str(WHISTLE))
    page.says("whistle.wav: 6.1 s")
    page.is_well()


def test_no_microphone(page):
    refuse = (
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{}'))"
    )
    troubles = {
        refuse.format("NotAllowedError"): "The microphone was refused",
        refuse.format("NotFoundError"): "No microphone was found",
        "Object.defineProperty(navigator, 'mediaDevices', {value: undefined})": "safe pages only",
    }
    page.open("trouble", SOUNDS, "widgets.Recorder()")
    page.find(".umt-source")
    for trouble, words in troubles.items():
        page.script(trouble)
        page.click("record from the microphone")
        page.says(words)
    assert page.faults() == []


def test_translator(page):
    sounds = "{'low': low[:8_000], 'long': np.tile(low, 3)}"
    cell = f"Translator(model, {sounds}, seconds=60, chosen=['drum'])"
    page.open("translator", SOUNDS, MODEL, cell)
    page.says("will take about")
    page.click("translate")
    page.says("0.5 s in 1 domain,")
    page.player(2)
    page.find(".umt select").send_keys("long")
    page.find(".umt input[value=flute]").click()
    page.click("translate")
    page.says("left")
    page.says("translating")
    page.click("stop")
    page.says("stopped; kept")
    page.player(3)
    page.click("record from the microphone")
    page.says("of 60 s")
    page.click("stop recording")
    page.says("recording:")
    assert page.find(".umt select").get_property("value") == "recording"
    page.is_well()


def test_listening_test_by_keyboard(page):
    packs = (
        "from pathlib import Path\nfrom umtlib.evaluation import stimuli\n"
        "from umtlib.notebook.hearing import ListeningTest\n"
        "pack, lineup = Path('pack'), Path('lineup')\npack.mkdir()\nlineup.mkdir()\n"
        "clips = {'c': {'source': low[:16_000], 'translation': high[:16_000]}}\n"
        "stimuli.write_opinion(clips, pack, {'c': 'g'}, seed=0)\n"
        "stimuli.write_lineup(clips, lineup, {'c': 'source'}, seed=0)"
    )
    tests = (f"ListeningTest({pack}, 'Ann')" for pack in ("pack", "lineup"))
    page.open("hearing", SOUNDS, packs, *tests)
    page.says("0 answered")
    player = page.player(2)
    root = page.find(".umt")
    root.send_keys(" ")
    until(lambda: data(player)["playing"] == "true", "the sound")
    root.send_keys("s")
    assert data(player)["chosen"] == "1"
    root.send_keys("4")
    page.says("1 answered")
    until(lambda: data(player)["chosen"] == "0", "the next sound, from its beginning")
    root.send_keys("2")
    page.says("All is answered, thank you")
    page.show(page.all(".umt")[1]).send_keys(" 2\ue007")  # Enter
    until(lambda: "1 answered" in page.all(".umt")[1].text, "the lineup")
    for name, column, answers in (("pack", "score", ["2", "4"]), ("lineup", "answer", ["2"])):
        with (page.folder / f"{name}/sheet-Ann.csv").open() as sheet:
            assert sorted(row[column] for row in csv.DictReader(sheet)) == answers
    kinds = "return jupyterapp.shell.currentWidget.content.widgets.map((c) => c.model.type)"
    assert set(page.script(kinds)) == {"code"}, "a digit made a heading of the cell"
    page.is_well()


def test_a_long_cell_is_stopped(page):
    endless = (
        "import umtlib\nsay = lambda *_: print('be' + 'gun')\n"
        "umtlib.translate(model, np.tile(low, 30), 16_000, progress=say)"
    )
    page.open("long", SOUNDS, MODEL, endless, "print('never')")
    page.says("begun")
    page.command("notebook:interrupt-kernel")
    page.says("KeyboardInterrupt")
    page.ready()
