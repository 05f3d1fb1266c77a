"""Notebooks of the course as a student meets them: opened, run to the end, and used."""

import pytest

from .conftest import CONTEXT, RUN_ALL, until

TRANSLATOR, PLAYER, TRAINING = (
    f".umt[data-kind={kind}]" for kind in ("Translator", "Player", "TrainingView")
)


def test_quickstart(page):
    page.course("01_quickstart")
    assert page.run() == []
    page.switch(page.find(f"{PLAYER} [data-sounds]"), 2)
    page.click("record from the microphone", TRANSLATOR)
    page.says(" s of 10 s", TRANSLATOR)
    page.click("stop recording", TRANSLATOR)
    for box in page.all(f"{TRANSLATOR} fieldset input"):
        if box.is_selected() != (box.get_attribute("value") == "bach_organ"):
            page.show(box).click()
    page.click("translate", TRANSLATOR)
    page.says("in 1 domain,", TRANSLATOR)
    player = page.player(2, TRANSLATOR)
    assert "input: recording" in player.text and "bach_organ" in player.text
    page.command("docmanager:save")
    until(lambda: page.script(f"return !{CONTEXT}.model.dirty"), "the file")
    page.visit("notebooks/01_quickstart.ipynb")
    assert "bach_organ" in page.player(2, TRANSLATOR).text  # it comes back from the kernel
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
    page.is_well()


@pytest.mark.parametrize("name", ["07_translation", "09_listening_tests"])
def test_the_others_with_widgets(page, name):
    page.course(name)
    assert page.run() == []
    page.is_well()
