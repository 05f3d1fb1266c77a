"""Notebooks of the course as a student meets them: opened, run to the end, and used."""

from umtlib.config import SIX_DOMAINS

from .conftest import CONTEXT, RUN_ALL, WHISTLE, data, length, position, until

TRANSLATOR, RECORDER, PLAYER, TRAINING, HEARING = (
    f".umt[data-kind={kind}]"
    for kind in ("Translator", "Recorder", "Player", "TrainingView", "ListeningTest")
)


def record(page, where):
    """Record for a moment from the microphone, which plays the whistle."""
    page.click("record from the microphone", where)
    until(lambda: page.text(f"{where} .umt-source .umt-time")[:1] > "0", "a second")
    page.click("stop recording", where)
    page.says("recording: ", where)
    assert "nothing is to be heard" not in page.text(where)


def choose(page, wanted):
    """Choose the domains to translate to: those of these names."""
    for box in page.all(f"{TRANSLATOR} fieldset input"):
        if box.is_selected() != (box.get_attribute("value") in wanted):
            page.show(box).click()


def test_quickstart(page):
    page.course("01_quickstart")
    assert page.run() == []
    page.switch(page.find(f"{PLAYER} [data-sounds]"), 2)
    record(page, RECORDER)
    record(page, TRANSLATOR)
    choose(page, ["bach_organ"])
    page.click("translate", TRANSLATOR)
    page.says("in 1 domain,", TRANSLATOR)
    player = page.player(2, TRANSLATOR)
    assert "input: recording" in player.text and "bach_organ" in player.text
    page.jump(player, 0.5)
    assert abs(position(player) / length(player) - 0.5) < 0.05
    page.switch(player, 2)
    page.picture("quickstart")
    page.command("docmanager:save")
    until(lambda: page.script(f"return !{CONTEXT}.model.dirty"), "the file")
    page.visit("notebooks/01_quickstart.ipynb")
    player = page.player(2, TRANSLATOR)  # it comes back from the kernel
    assert "bach_organ" in player.text
    page.is_well()


def test_six_domains(page):
    page.course("05_training_six_domains")
    page.script(RUN_ALL)
    page.says("step ", TRAINING)
    page.command("notebook:interrupt-kernel")  # the cell that waits, not the training
    page.says("KeyboardInterrupt")
    page.click("stop", TRAINING)
    page.find(f"{TRAINING} button[aria-label='go on']")
    assert page.run() == []
    page.says("step 420 of 420", TRAINING)
    page.find(f"{TRAINING} button[aria-label='go on']", lambda button: not button.is_displayed())
    page.find(f"{TRAINING} svg")
    page.picture("six-domains")
    page.is_well()


def test_translation(page):
    page.course("07_translation")
    assert page.run() == []
    page.switch(page.find(f"{PLAYER} [data-sounds]"), 3)
    page.find(f"{TRANSLATOR} input[type=file]").send_keys(str(WHISTLE))
    page.says("whistle.wav: 6.1 s", TRANSLATOR)
    choose(page, SIX_DOMAINS)
    page.click("translate", TRANSLATOR)
    page.says("left", TRANSLATOR)
    page.click("stop", TRANSLATOR)
    page.says("stopped; kept", TRANSLATOR)
    page.switch(page.player(7, TRANSLATOR), 2)
    page.picture("translation")
    page.is_well()


def test_listening_tests(page):
    page.course("09_listening_tests")
    assert page.run() == []
    opinion, lineup = (page.show(test) for test in page.all(HEARING)[:2])
    page.show(opinion)
    opinion.send_keys(" ")
    player = opinion.find_element("css selector", ".umt-player")
    until(lambda: data(player)["playing"] == "true", "the sound")
    opinion.send_keys("s4")
    until(lambda: "1 answered" in opinion.text, "the answer")
    page.picture("opinion")
    page.show(lineup)
    lineup.send_keys(" 3")
    lineup.send_keys("\ue007")  # Enter
    until(lambda: "1 answered" in lineup.text, "the answer")
    page.picture("lineup")
    page.is_well()
