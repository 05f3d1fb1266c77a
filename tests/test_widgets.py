"""The kernel's side of the widgets; their page is tried in ``tests/browser``."""

import functools
import html
import io
import itertools
import math
import os
import signal
import threading
import time

import nbformat
import numpy as np
import pytest
import soundfile
from nbconvert import HTMLExporter

import umtlib
from conftest import DOMAINS, tone
from umtlib import errors
from umtlib.evaluation import listening, stimuli
from umtlib.generation import translation
from umtlib.notebook import following, hearing, players, translating, widgets

SOUNDS = {"low": tone(1), "high": tone(0.5, hertz=880, amplitude=0.03)}


def said_to(widget, buffers=(), **message):
    """Do what is done on a page."""
    widget._receive(widget, message, [memoryview(b) for b in buffers])
    return widget.state.get("error", "")


def shown(widget):
    return widget._repr_mimebundle_()[0]


# --- sounds ---------------------------------------------------------------------------------------


def test_sounds_are_small_and_as_long_as_they_were():
    file, kind = players.encode(tone(3))
    decoded, rate = soundfile.read(io.BytesIO(file))
    assert kind == "audio/ogg" and len(file) < 3 * 5_000
    assert players.encode(tone(3))[0] == file, "notebooks that are made again stay the same"
    assert (len(decoded), rate) == (48_000, 16_000)
    assert np.abs(decoded - tone(3))[800:-800].max() < 0.1


def test_any_sound_is_encoded():
    sounds = np.zeros(0), np.zeros(1), np.array([2.0, -2.0, np.pi])
    for samples, exact in itertools.product(sounds, (True, False)):
        decoded, _ = soundfile.read(io.BytesIO(players.encode(samples, exact)[0]))
        assert len(decoded) == len(samples)


def test_wav_where_there_is_no_opus(monkeypatch):
    monkeypatch.setattr(players.soundfile, "check_format", lambda *_: False)
    file, kind = players.encode(tone(0.1))
    assert kind == "audio/wav" and file[:4] == b"RIFF"


def test_players_are_equally_loud():
    player = widgets.Player(SOUNDS | {"silence": np.zeros(100)}, onsets=[0, 0.5])
    low, high, _ = (
        np.abs(sound * told["gain"]).max()
        for sound, told in zip(player.waveforms.values(), player.sounds, strict=True)
    )
    assert low == pytest.approx(high, rel=0.05) and low <= 1
    assert player.state["onsets"] == [0, 0.5]
    assert {len(told["picture"]) for told in player.sounds} == {players.ROWS * players.COLUMNS}


def test_without_a_kernel_a_widget_is_html_with_its_sounds():
    bundle = shown(widgets.Player({"a < b": tone(0.1)}))
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "0x" not in bundle["text/plain"], "the place in memory is another each time"
    output = nbformat.v4.new_output("display_data", bundle)
    cell = nbformat.v4.new_code_cell("player", outputs=[output])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "a &lt; b" in page and page.count("<audio ") == 1 and "data:audio/" in page


def test_a_sound_can_be_had_exactly(monkeypatch):
    player, sent = widgets.Player(SOUNDS), []
    monkeypatch.setattr(player, "send", lambda told, buffers: sent.append((told, buffers)))
    said_to(player, do="wav", number=1, why="keep")
    (told, (file,)) = sent[0]
    assert told["title"] == "high" and len(soundfile.read(io.BytesIO(file))[0]) == 8_000


# --- recorder -------------------------------------------------------------------------------------


def send(recorder, content, **end):
    """Send bytes in pieces, and what they were."""
    said_to(recorder, do="begin")
    for start in range(0, len(content), 10_000):
        said_to(recorder, [content[start : start + 10_000]], do="piece")
    return said_to(recorder, **end)


def record(recorder, waveform, rate):
    return send(recorder, (waveform * 32_767).astype("<i2").tobytes(), do="recorded", rate=rate)


def test_recorder_joins_the_pieces():
    recorder = widgets.Recorder(seconds=1.5)
    assert "Nothing" in shown(recorder)["text/html"]
    assert record(recorder, tone(2, rate=48_000), 48_000) == ""
    assert len(recorder.sound) == 24_000, "limited"
    assert np.abs(recorder.sound - tone(1.5))[100:-100].max() < 0.01
    assert shown(recorder)["text/html"].count("<audio") == 1


def test_no_recording():
    recorder = widgets.Recorder()
    for waveform, rate in ((np.zeros(0), 16_000), (tone(1), 0), (tone(1), 1e9)):
        assert "nothing was recorded" in record(recorder, waveform, rate)
    assert recorder.sound is None


def test_recording_is_judged():
    recorder = widgets.Recorder()
    for amplitude, words in ((0, "nothing is to be heard"), (1, "clipped")):
        record(recorder, tone(1, amplitude=amplitude), 16_000)
        assert words in recorder.state["said"]


@pytest.mark.parametrize("name", ["my tune.wav", "../<b>.wav", "no suffix"])
def test_recorder_takes_files_and_refuses_what_is_no_sound_by_its_name(name):
    recorder, file = widgets.Recorder(), players.encode(tone(1), exact=True)[0]
    assert send(recorder, file, do="file", name=name) == ""
    assert len(recorder.sound) == 16_000 and name in recorder.state["said"]
    error = send(recorder, b"no sound", do="file", name=name)
    assert name in error and "umt-upload" not in error
    assert html.escape(error) in (page := shown(recorder)["text/html"]) and "<b>" not in page


# --- translator -----------------------------------------------------------------------------------


@pytest.fixture
def translator(blink_model):
    made = translating.Translator(blink_model, {"low": tone(0.5), "high": tone(0.25, hertz=880)})
    until(lambda: made.state["expected"])
    return made


def until(holds, longest=60):
    end = time.monotonic() + longest
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_translator_makes_what_translate_makes(translator, blink_model):
    said_to(translator, do="set", values={"seed": 3, "chosen": ["drum"], "temperature": 0.8})
    how = {"to": "drum", "seed": 3, "temperature": 0.8}
    expected = translation.translate(blink_model, tone(0.5), 16_000, **how)
    np.testing.assert_allclose(translator.run()["drum"], expected, atol=1e-6)
    assert list(translator.waveforms) == ["input: low", "drum"]
    assert "seed 3" in shown(translator)["text/html"] and not translator.state["busy"]


def test_stop_keeps_what_was_made(translator, monkeypatch):
    monkeypatch.setattr(translating, "PIECE", 0.0)  # a frame at a time
    monkeypatch.setattr(translator, "_stop", stop := type(translator._stop)())
    monkeypatch.setattr(stop, "clear", lambda: None)
    stop.set()
    made = translator.run()
    assert {len(sound) for sound in made.values()} == {translator.model.config.encoder.pool}
    assert "stopped" in translator.state["said"]


def test_translator_blends(translator):
    said_to(translator, do="set", values={"blend": "high"})
    made = translator.run()
    assert {len(sound) for sound in made.values()} == {8_000}, "0.5 s and 0.25 s over 0.25 s"


def test_translator_takes_a_recording(translator):
    record(translator, tone(0.3), 16_000)
    assert translator.state["source"] == "recording" == translator.state["sources"][-1]
    assert set(translator.run()) == set(DOMAINS)


def test_translator_refuses_wrong_settings_and_says_what_is_missing(translator):
    before = translator.state | {"error": ""}
    for name, value in (("seed", -1), ("seed", 0.5), ("temperature", 0), ("chosen", ["kazoo"]),
                        ("source", "nothing"), ("blend", "nothing"), ("model", 1)):  # fmt: skip
        assert f"{name} cannot be" in said_to(translator, do="set", values={name: value})
        assert translator.state | {"error": ""} == before
    said_to(translator, do="set", values={"chosen": []})
    said_to(translator, do="start")
    until(lambda: not translator.state["busy"])
    assert "choose a domain" in translator.state["error"]


# --- training -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_is_started_stopped_and_gone_on_with(corpus, tmp_path):
    view = following.TrainingView(tmp_path / "run", corpus, ["--preset", "tiny", "--steps", "9999"])
    said_to(view, do="start")
    assert os.getpgid(view._process.pid) != os.getpgid(0), "the kernel's interrupts would stop it"
    interrupt = functools.partial(signal.pthread_kill, threading.get_ident(), signal.SIGINT)
    threading.Timer(0.5, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        view.wait()
    assert view._follower.is_alive(), "the cell was interrupted, not the training"
    until(view.out.exists, 300)
    said_to(view, do="stop")
    view.wait()
    assert view.state["error"] == "" and not view.state["running"]
    assert "of 9999" in view.state["said"] and "chance" in shown(view)["text/html"]
    step = following.read_log(view.out / following.LOG)[-1]["step"]
    view.options[-1] = str(step + 2)
    said_to(view, do="start")
    view.wait()
    assert f"step {step + 2} of {step + 2}" in shown(view)["text/plain"]
    assert view.waveforms, "held-out excerpts are heard at the end"


def test_training_that_fails_says_why(tmp_path):
    view = following.TrainingView(tmp_path / "run", tmp_path / "nowhere")
    said_to(view, do="start")
    view.wait()
    assert "nowhere" in view.state["error"] and not view.state["running"]
    assert "needs a corpus" in said_to(following.TrainingView(tmp_path / "run"), do="start")


def test_a_training_that_is_done_is_not_gone_on_with(tmp_path):
    line = '{"step": 20, "steps": 20, "seconds": 9, "samples_per_second": 1, "reconstruction": 3}'
    (tmp_path / "log.jsonl").write_text(line + '\n{"step": 21, "st')  # which is being written
    view = following.TrainingView(tmp_path, tmp_path)
    assert view.state["begun"] and not view.state["done"], "it was killed before it was saved"
    (tmp_path / "step-00000020").mkdir()
    view.look()
    assert view.state["done"]
    for steps, done in (("10", True), ("20", True), ("21", False)):
        view = following.TrainingView(tmp_path, tmp_path, ["--steps", steps])
        assert view.state["done"] == done


def test_charts_have_chance_and_best():
    lines = [
        {"step": n, "steps": 20, "seconds": n, "samples_per_second": 32_000, "classifier": 0.7,
         "reconstruction": 5 - n / 10, "accuracy": 0.5, "flute": 4.0, "drum": 4.5, "bad": 0}
        for n in (5, 10)
    ]  # fmt: skip
    drawn = following.charts(lines, best=2.5)
    for words in (f"chance {math.log(256):.3f}", f"chance {math.log(2):.3f}", "best known 2.500"):
        assert words in drawn
    for reports in (lines[:1], lines):
        assert "#1f77b4" in following.charts(reports), "few reports are no yardstick"
    assert "nan" not in drawn and "step 10 of 20" in (said := following.told(lines))
    assert "about 10 s left" in said and "2 s of audio a second" in said


# --- listening test -------------------------------------------------------------------------------


@pytest.fixture
def opinions(tmp_path):
    clips = {
        f"clip {n}": {s: tone(0.2, hertz=200 * n) for s in ("translation", "source", "truth")}
        for n in (1, 2)
    }
    stimuli.write_opinion(clips, tmp_path, dict.fromkeys(clips, "unseen"), seed=0)
    return tmp_path


def test_opinion_scores_are_what_ratings_reads(opinions):
    test = hearing.ListeningTest(opinions, "Ann")
    assert [told["title"] for told in test.sounds] == ["sound", "the source"]
    for number in range(10):
        assert said_to(test, do="answer", number=1 + number % 5) == ""
    rows = stimuli.unblind(opinions / stimuli.KEY, [test.out])
    assert len(rows) == 10 and {row["system"] for row in rows} >= {"translation", "mulaw", "low"}
    assert listening.evaluate(rows)["systems"]
    assert "thank you" in shown(test)["text/html"]


def test_a_page_learns_nothing_of_what_it_plays(opinions):
    test = hearing.ListeningTest(opinions, "Ann")
    told = str({k: v for k, v in test.get_state().items() if k not in ("_esm", "_css")})
    for word in (".wav", "clip", "mulaw", "truth", "picture"):
        assert word not in told


def test_raters_hear_orders_of_their_own_and_go_on_where_they_were(opinions):
    ann, bob = (hearing.ListeningTest(opinions, name) for name in ("Ann", "Bob"))
    assert [r["stimulus"] for r in ann.rows] != [r["stimulus"] for r in bob.rows]
    said_to(ann, do="answer", number=5)
    again = hearing.ListeningTest(opinions, "Ann")
    assert (again.state["place"], again.state["answered"]) == (1, 1)
    said_to(again, do="go", step=-1)
    assert again.state["given"] == 5
    said_to(again, do="answer", number=4)
    assert [row["score"] for row in listening.read(again.out, stimuli.OPINION_SHEET[:2])] == ["4"]


def test_lineup(tmp_path):
    clips = {n: {d: tone(0.2, hertz=h) for d, h in (("a", 200), ("b", 300))} for n in ("x", "y")}
    stimuli.write_lineup(clips, tmp_path, dict.fromkeys(clips, "a"), seed=0)
    test = hearing.ListeningTest(tmp_path, "Ann", tmp_path / "mine.csv")
    assert [told["title"] for told in test.sounds] == ["sound 1", "sound 2"]
    second = umtlib.read(tmp_path / f"{test.rows[0]['lineup']}-2.wav")
    assert np.array_equal(test.waveforms["sound 2"], second)
    assert "no answer" in said_to(test, do="answer", number=3)
    for _ in clips:
        said_to(test, do="answer", number=2)
    rows = stimuli.unblind(tmp_path / stimuli.KEY, [tmp_path / "mine.csv"])
    assert listening.lineup(rows, ["a", "b"])["n"] == 2


def test_no_pack_no_rater_another_sheet(opinions, tmp_path):
    with pytest.raises(errors.EvaluationError, match="no name"):
        hearing.ListeningTest(opinions, " ")
    with pytest.raises(errors.EvaluationError, match=r"sheet\.csv"):
        hearing.ListeningTest(tmp_path / "no", "Ann")
    said_to(hearing.ListeningTest(opinions, "Ann"), do="answer", number=1)
    with pytest.raises(errors.EvaluationError, match="not of this pack and rater"):
        hearing.ListeningTest(opinions, "Bob", opinions / "sheet-Ann.csv")
