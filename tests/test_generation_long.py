"""Long inputs in stretches, and live ones as they arrive."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import seams
import soundfile
import torch

import umtlib
from umtlib import audio as sound
from umtlib import config, mulaw, translator
from umtlib.errors import ConfigError
from umtlib.generation import chunks, generate, translation
from umtlib.generation.hearing import Heard, encode_blocks, frame_levels
from umtlib.generation.stream import latency, stream

POOL = 200


@pytest.fixture(scope="module", params=["waveform", "filterbank"])
def model(request):
    preset = config.preset("tiny", ("a", "b")).model
    encoder = preset.encoder
    if request.param == "filterbank":
        encoder = replace(encoder, front_end="filterbank", layers=3, filters=8, filter_taps=128)
    return translator.build(replace(preset, encoder=encoder)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def one():
    preset = config.preset("tiny", ("a",)).model
    return translator.build(preset, seed=3).eval().requires_grad_(False)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(samples, seed=0):
    return torch.rand(samples, generator=rng(seed)) - 0.5


# ---------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("block, hop", [(64, 3), (10**6, 4)])
def test_streaming_is_translating_the_whole(model, block, hop):
    audio = sound.level(noise(7_001).numpy())
    blocks = torch.from_numpy(audio).split(block)
    made = torch.cat(list(umtlib.stream(model, blocks, to="b", hop=hop, generator=rng(3))))
    # The encoder's sums may round differently in a window, so a code may move at the edge of its
    # step, and from there on another sampling follows: rare enough not to happen here.
    whole = translation.translate(model, audio, 16_000, to="b", seed=3)
    assert np.array_equal(sound.level(made.numpy(), translation.MOST_GAIN), whole)


def test_windows_encode_like_the_whole_and_the_line_forgets(model):
    audio = noise(50_123)
    made = encode_blocks(model, audio.split(777), 3)
    parts = []
    for heard in made:
        parts.append(heard.latent)
        codes = made.gi_frame.f_locals["codes"]
        assert len(codes) <= 2 * model.encoder.reach + 10 * POOL
    whole = model.encode(model.to_codes(audio)[None])
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=0)


def test_audio_leaves_as_soon_as_the_latency_says(model):
    hop, heard = 2, []
    wait = round(latency(model, hop) * 16_000)

    def blocks():
        for _ in range(wait + 3 * hop * POOL):
            heard.append(None)
            yield torch.zeros(1)

    made = stream(model, blocks(), "a", hop=hop, generator=rng())
    for step in range(3):
        assert len(next(made)) == hop * POOL
        assert len(heard) == wait + step * hop * POOL


def test_silence_from_no_blocks_and_no_such_domain(model):
    assert list(stream(model, [], "a")) == []
    with pytest.raises(ConfigError, match="unknown domain 'c'"):
        next(stream(model, [torch.zeros(10)], "c"))


# ---------------------------------------------------------------------------------- stretches


def test_cuts_are_made_where_it_is_quiet(one):
    decoder = one.decoders["a"]
    levels, seconds = torch.ones(100), 20 * POOL / 16_000
    levels[[22, 37, 63]] = torch.tensor([0.1, 0.0, 0.2])
    # Even places are 20, 40, 60, 80; a cut moves by at most 3 frames.
    assert chunks.plan(decoder, levels, seconds) == [0, 22, 37, 63, 77, 100]
    assert chunks.plan(decoder, torch.ones(29), seconds) == [0, 29]
    assert frame_levels(torch.ones(5), 4).tolist() == [1.0, 0.25]


def stretched(model, latent, **options):
    """What is performed of a latent (L, F) in stretches."""
    frames = latent.shape[1]
    heard = Heard(latent[None], frames * POOL, torch.ones(1, frames))
    made = chunks.perform_long(model, "a", heard, generator=rng(4), **options)
    return torch.cat([piece[0] for _, piece in made])


def test_one_stretch_is_exact(one):
    latent = torch.randn(8, 30, generator=rng())
    padded = torch.cat([latent, latent[:, -1:]], dim=1)
    codes = generate(one.decoders["a"], padded[None], generator=rng(4))[0, : 30 * POOL]
    assert torch.equal(stretched(one, latent), mulaw.decode(codes))


def test_stretches_do_not_depend_on_how_many_are_made_at_a_time(one, monkeypatch):
    latent, heard, made = torch.randn(8, 400, generator=rng()), [], []
    for streams in (1, 3, 100):
        monkeypatch.setattr(chunks, "STREAMS", streams)
        made.append(stretched(one, latent, seconds=0.5, threads=1, progress=heard.append))
    assert len(made[0]) == 400 * POOL and heard[-1] == 400 * POOL
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_each_stretch_is_told_its_own_frames(one, monkeypatch):
    decoder, latent, rows, told = one.decoders["a"], torch.arange(400.0).expand(8, 400), [], []

    def recorded(decoder, told, **options):
        rows.extend(told.condition[:, 0])
        return generate(decoder, told, **options)

    def finish(waveform, known, *_):
        told.append(known.condition[0, 0].tolist())
        return waveform

    monkeypatch.setattr(chunks, "generate", recorded)
    monkeypatch.setattr(chunks, "STREAMS", 3)
    monkeypatch.setattr(decoder.guide, "finish", finish)
    stretched(one, latent, seconds=0.5, threads=1)
    cuts, reach = chunks.plan(decoder, torch.ones(400), 0.5), chunks._reach(decoder)
    for number, (first, last) in enumerate(pairwise(cuts)):
        assert told[number] == list(range(first, last))
        frames = torch.arange(max(0, first - reach), last + 1).clamp(max=399)
        assert torch.equal(rows[number][: len(frames)], frames.float())


# ------------------------------------------------------------------------------------- seams


def test_seams_sound_like_the_rest_and_bad_ones_are_seen(one, monkeypatch):
    decoder = one.decoders["a"]
    monkeypatch.setattr(chunks, "FADE", POOL)
    latent = torch.randn(8, 1, generator=rng()).expand(8, 1_200)  # steady
    made = stretched(one, latent, seconds=0.25).numpy()
    exact = mulaw.decode(generate(decoder, latent[None], generator=rng(5))[0]).numpy()
    cuts = [cut * POOL for cut in chunks.plan(decoder, torch.ones(1_200), 0.25)[1:-1]]
    found = seams.evaluate(made, exact, cuts)
    assert found["seams"] == len(cuts) > 40
    # A fade of constant amplitude would lose 1.8 dB in the mean: two samplings do not correlate.
    assert abs(found["level_db"]) < 0.5
    assert found["flux"] == pytest.approx(found["flux_exact"], abs=0.1)
    quiet, sudden = made.copy(), made.copy()
    for cut in cuts:
        quiet[cut : cut + POOL] *= 0.5
        sudden[cut + POOL // 2 : cut + POOL // 2 + 256] *= 3
    assert seams.evaluate(quiet, exact, cuts)["level_db"] == pytest.approx(-6, abs=0.5)
    assert seams.flux_ratio(sudden, cuts) > 1.5 * found["flux_exact"]


def test_seams_of_a_translation(model):
    found = seams.compare(model, 0.1 * noise(30_000).numpy(), "a", seconds=0.3)
    assert found["seams"] == 5 and abs(found["level_db"]) < 3


# ------------------------------------------------------------------------------- translations


@pytest.mark.parametrize("domains, threads, fewest", [(1, 2, 4), (6, 2, 8), (6, 16, 24)])
def test_cutting_pays_where_it_makes_many_more_streams(
    model, monkeypatch, domains, threads, fewest
):
    monkeypatch.setattr(translation, "thread_count", lambda: threads)
    for stretches, pays in ((fewest - 1, False), (fewest, True)):
        monkeypatch.setattr(translation, "stretches", lambda *_, n=stretches: n)
        assert translation.cuts_pay(model, domains, 16_000) == pays


def test_chunked_translation_is_as_long_and_the_same_in_any_company(model):
    audio, heard = noise(140_321).numpy(), []
    both = translation.translate(
        model, audio, 16_000, chunked=True, progress=lambda *call: heard.append(call)
    )
    alone = translation.translate(model, audio, 16_000, to="b", chunked=True)
    assert both["a"].shape == alone.shape == audio.shape
    assert np.array_equal(both["b"], alone)
    assert heard == sorted(heard) and heard[-1] == (140_321, 140_321)
    exact = translation.translate(model, audio, 16_000, to="b")
    assert not np.array_equal(exact, alone)  # there is a cut


def test_a_translation_in_int8_is_another_one_and_as_long(umt, blink_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples = noise(9_001).numpy()
    loaded = umtlib.load(str(blink_folder))
    made = [
        umtlib.translate(loaded, samples, 16_000, to="drum", dtype=dtype, chunked=chunked)
        for dtype in (torch.int8, torch.float32)
        for chunked in (False, True)
    ]
    assert all(len(found) == len(samples) for found in made)
    assert not np.array_equal(made[0], made[2]) and not np.array_equal(made[1], made[3])
    soundfile.write("in.wav", samples, 16_000, subtype="FLOAT")
    options = ("--model", blink_folder, "--to", "drum", "--no-picture", "--dtype")
    assert umt("translate", "in.wav", *options, "int8")[0] == 0
    written, _ = soundfile.read("outputs/in.drum.wav")
    np.testing.assert_allclose(written, made[0], atol=1e-4)
    status, _, error = umt("translate", "in.wav", *options, "int9")
    assert status == 2 and "unknown dtype 'int9'" in error


MEMORY = """
import contextlib, sys
from pathlib import Path
import numpy as np
from umtlib import audio, cli

model, seconds = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
with audio.writing("in.wav") as put:
    for _ in range(seconds):
        put(0.1 * rng.standard_normal(16_000))
with contextlib.suppress(SystemExit):
    cli.main(["translate", "in.wav", "--model", model, "--to", "drum", "--no-picture"])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_memory_hardly_grows_with_the_length(blink_folder, tmp_path):
    """The peak of two lengths, both of more stretches than are made at a time."""
    peaks = []
    for seconds in (40, 640):
        process = subprocess.Popen(
            [sys.executable, "-c", MEMORY, blink_folder, str(seconds)],
            cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"UMT_THREADS": "1", "OMP_NUM_THREADS": "1"},  # 6 stretches at a time
        )  # fmt: skip
        printed = process.communicate()[0]
        assert process.returncode == 0 and "cut into" in printed
        assert soundfile.info(tmp_path / "outputs" / "in.drum.wav").frames == seconds * 16_000
        # Its own word for it: what the parent's wait says includes this process, from the fork.
        peaks.append(int(printed.split()[-1]) / 2**10)  # MB
    growth = (peaks[1] - peaks[0]) / 600  # MB per second
    assert peaks[0] + 3 * 3600 * growth < 1_500  # after three hours
