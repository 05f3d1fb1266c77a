"""Reading, resampling, levelling and writing, on tones whose every sample is known."""

import os
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

from conftest import tone
from umtlib import audio
from umtlib.audio import levels
from umtlib.errors import AudioError, UmtWarning


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 192_000])
def test_a_tone_survives_any_rate(rate):
    found = audio.to_mono_16k(tone(1, rate, 1_000), rate)
    wanted = tone(1, 16_000, 1_000)
    assert found.dtype == np.float32 and found.shape == wanted.shape
    # 100 dB below the tone, away from the edges: soxr's "very high quality" has 120 and more.
    assert np.abs(found - wanted)[800:-800].max() < 0.3e-5
    if rate > 18_000:  # what no longer fits in vanishes
        assert np.abs(audio.to_mono_16k(tone(1, rate, 9_000), rate)[800:-800]).max() < 1e-5


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 47_999])
def test_length_is_the_nearest_number_of_samples(rate):
    for frames in (3, 799, 800, 10_007):
        found = audio.to_mono_16k(np.zeros(frames), rate)
        assert len(found) == round(frames * 16_000 / rate)


def test_16_khz_16_bit_mono_is_not_touched(tmp_path):
    pcm = np.arange(-32768, 32768, 7).astype(np.int16)
    soundfile.write(tmp_path / "in.wav", pcm, 16_000, subtype="PCM_16")
    waveform = audio.read(tmp_path / "in.wav")
    assert np.array_equal(waveform * 32768, pcm)
    audio.write(tmp_path / "out.wav", waveform)
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    assert np.array_equal(soundfile.read(tmp_path / "out.wav", dtype="int16")[0], pcm)


@pytest.mark.parametrize("given, wanted, error", [
    *[(np.stack([tone() * c / 8 for c in range(n)], axis=1), tone() * (n - 1) / 16, 1e-7)
      for n in (1, 2, 3, 8)],
    (9 * tone(), tone() / np.abs(tone()).max(), 1e-6),  # too loud is scaled as a whole
    ((tone() * 2**15).astype(np.int16), tone(), 2**-14),
    ((tone() * 2**31).astype(np.int32), tone(), 1e-7),
    (np.round(tone() * 128 + 128).astype(np.uint8), tone(), 2**-7),
])  # fmt: skip
def test_channels_are_averaged_and_integers_scaled(given, wanted, error):
    assert np.abs(audio.to_mono_16k(given, 16_000) - wanted).max() < error


@pytest.mark.parametrize("suffix, rate, block", [("mp3", 16_000, 5_003), ("wav", 44_100, 1_009)])
def test_what_is_read_in_blocks_is_what_is_read_at_once(tmp_path, monkeypatch, suffix, rate, block):
    # soundfile's own blocks seek after each read, which leaves a wrong frame at every border.
    path = tmp_path / f"in.{suffix}"
    soundfile.write(path, tone(2, rate), rate)
    at_once = audio.to_mono_16k(*soundfile.read(path, dtype="float32"))
    monkeypatch.setattr(audio, "_BLOCK", block)
    assert np.allclose(audio.read(path), at_once, atol=1e-6)


@pytest.mark.parametrize("suffix, error", [
    ("mp3", 0.05), ("flac", 1e-4), ("aiff", 1e-4), ("au", 1e-4), ("w64", 1e-4), ("rf64", 1e-4),
])  # fmt: skip
def test_what_comes_before_the_damage_is_used(tmp_path, suffix, error):
    path = tmp_path / f"in.{suffix}"
    soundfile.write(path, tone(4), 16_000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 13])
    with pytest.warns(UmtWarning, match=r"in.* of the (4|3.997) s that its header says"):
        found = audio.read(path)
    assert 1.5 * 16_000 < len(found) < 2.5 * 16_000
    assert np.abs(found - tone(4)[: len(found)])[2_000:-2_000].max() < error


def test_a_header_that_does_not_say_the_length_is_no_damage(tmp_path, recwarn):
    soundfile.write(tmp_path / "in.flac", tone(1), 16_000)
    content = bytearray((tmp_path / "in.flac").read_bytes())
    content[21] &= 0xF0  # of STREAMINFO: the number of samples, which an encoder in a pipe leaves 0
    content[22:26] = bytes(4)
    (tmp_path / "in.flac").write_bytes(content)
    assert len(audio.read(tmp_path / "in.flac")) == 16_000 and not list(recwarn)


def test_longer_than_the_limit_is_refused(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "in.wav", tone(3), 16_000)
    monkeypatch.setattr(audio, "LONGEST", 2)
    with pytest.raises(AudioError, match="longer"):
        audio.read(tmp_path / "in.wav")


@pytest.mark.parametrize("bad", [
    np.zeros(0), np.zeros((0, 2)), np.zeros((5, 0)), np.zeros(()), np.zeros((2, 2, 2)),
    np.zeros((2, 80_000)), np.zeros(9, np.int64), np.zeros(9, complex), np.array(["a"]),
    np.zeros(1), *[np.append(tone(), bad) for bad in (np.nan, np.inf, -np.inf)],
])  # fmt: skip
def test_arrays_that_are_no_audio_are_refused(bad):
    for rate in (44_100, 16_000) if bad.size > 1 else (44_100,):  # one sample is enough at 16 kHz
        with pytest.raises(AudioError):
            audio.to_mono_16k(bad, rate)


@pytest.mark.parametrize("gain", [1e-2, 1, 3])
def test_level(gain):
    found = audio.level((gain * tone(1)).astype(np.float32))
    assert np.sqrt(np.mean(found**2)) == pytest.approx(audio.LEVEL, rel=1e-3)


def put(waveform, place, new):
    changed = waveform.copy()
    changed[place] = new
    return changed


FAULTS = {
    "offset": lambda x: x + 0.4,
    "offset that drifts": lambda x: x + np.linspace(-0.4, 0.4, len(x)),
    "rumble": lambda x: x + 0.5 * np.sin(np.arange(len(x)) * 2 * np.pi * 3 / 16_000),
    "click at the start": lambda x: put(x, 0, -1.0),
    "a click every second": lambda x: put(x, slice(None, None, 16_000), 1.0),
    "knocks": lambda x: x * (1 + 9 * (np.arange(len(x)) % 32_000 < 1_600)),
    "offset and click": lambda x: put(x - 0.3, 40_000, 1.0),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("loud", [0.02, 0.2])
def test_the_musics_level_does_not_depend_on_what_disturbs_it(fault, loud):
    notes = 0.3 + 0.7 * np.sin(np.arange(96_000) * 2 * np.pi / 16_000) ** 2
    music = loud * notes * tone(6, amplitude=1)
    found, wanted = audio.level(FAULTS[fault](music)), audio.level(music)
    quiet = slice(66_500, 79_000)  # no fault is here
    change = 20 * np.log10(np.std(found[quiet]) / np.std(wanted[quiet]))
    assert abs(change) < 1.5
    assert np.abs(found).max() <= np.float32(audio.CEILING)


@pytest.mark.parametrize("fault", ["knocks", "offset that drifts"])
def test_levelling_twice_or_in_pieces_is_levelling_once(monkeypatch, fault):
    music = FAULTS[fault](0.2 * tone(6))
    once, plain = audio.level(music), audio.level(0.2 * tone(6))
    assert np.allclose(audio.level(plain), plain, atol=1e-6)
    for frames in (2, 7, 997):
        monkeypatch.setattr(levels, "_PIECE", frames * levels.FRAME)
        assert np.allclose(audio.level(music), once, atol=1e-6)


S, C = tone(1), tone(1, hertz=700)


@pytest.mark.parametrize("channels, cancel", [
    ((S, -S), True), ((S + 0.5, 0.5 - S), True), ((S, -0.4 * S), True), ((S, S), False),
    ((S, C), False), ((S, 0 * S), False), ((S, -S / 5), False), ((0 * S, 0 * S), False),
    ((np.r_[0 * S, 0 * S, S], np.r_[0 * S, 0 * S, -S]), True),
])  # fmt: skip
def test_channels_that_cancel_are_heard(tmp_path, monkeypatch, recwarn, channels, cancel):
    monkeypatch.setattr(audio, "_BLOCK", 10_000)  # a recording may begin with silence
    channels = np.stack(channels, axis=1)
    soundfile.write(tmp_path / "in.wav", channels, 16_000, subtype="FLOAT")
    found = audio.to_mono_16k(channels, 16_000)
    assert np.array_equal(audio.read(tmp_path / "in.wav"), found.astype(np.float32))
    told = [str(warning.message) for warning in recwarn]
    assert len(told) == 2 * cancel
    if cancel:
        assert np.std(found) > 0.9 * np.sqrt(np.var(channels, axis=0).max())
        assert "in.wav" in told[1] and "cancel" in told[1]


@pytest.mark.parametrize("samples", [1, 799, 800, 16_001])
def test_level_of_silence_is_silence(samples):
    assert not audio.level(np.zeros(samples, np.float32)).any()
    assert np.abs(audio.level(np.full(samples, 1e-6, np.float32))).max() <= 1.01e-4


def test_pauses_noise_and_clicks_do_not_count():
    pause = np.zeros(64_000)
    assert np.allclose(audio.level(np.r_[tone(1), pause])[:16_000], audio.level(tone(1)), atol=1e-5)
    click = np.r_[tone(1, amplitude=0.01), 1.0]
    assert np.abs(audio.level(click)).max() == pytest.approx(audio.CEILING)
    room = 1e-3 * np.random.default_rng(0).standard_normal(60 * 16_000)
    music = slice(30 * 16_000, round(31.5 * 16_000))
    room[music] += tone(1.5, amplitude=0.2)
    assert 20 * np.log10(np.std(audio.level(room)[music])) == pytest.approx(-20, abs=1.5)


def test_what_is_written_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "out.wav"
    audio.write(path, np.array([2.0, -2.0]))  # clipped
    assert soundfile.read(path, dtype="int16")[0].tolist() == [32767, -32768]
    before = path.read_bytes()
    with pytest.raises(AudioError, match="NaN"):
        audio.write(path, np.array([0, np.nan]))
    with pytest.raises(KeyboardInterrupt), audio.replacing(path) as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(AudioError, match=r"out\.wav: No space left"):
        audio.write(path, tone(1))
    assert os.listdir(tmp_path) == ["out.wav"] and path.read_bytes() == before
