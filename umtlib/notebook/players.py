"""Hear sounds in a notebook, and make them small enough for it. Notebook: ``01_quickstart``."""

import base64
import html
import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import soundfile
from IPython.display import HTML

from umtlib import audio
from umtlib.audio import SAMPLE_RATE
from umtlib.notebook import plots

COLUMNS, ROWS = 400, 86  # of the spectrogram that a player draws
# Of Opus: 20 kbit/s on libsndfile's scale of 6 to 256. It is enough to judge by.
LEVEL = 1 - (20 - 6) / 250
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def play(sounds: Mapping[str, np.ndarray]) -> HTML:
    """Return a plain player with a title for each sound, to be the last line of a notebook's cell.

    The sounds, each of shape (T,), in [-1, 1], 16 kHz, become part of the notebook, coded in 3 KB a
    second. They keep their levels: nothing is normalised, and what exceeds 1 is clipped.
    """
    return HTML(table([(title, *encode(waveform)) for title, waveform in sounds.items()]))


def table(sounds: Sequence[tuple[str, bytes, str]]) -> str:
    """Return plain HTML with a player for each (title, file, kind) of sound."""
    if not sounds:
        return ""
    rows = (
        f"<tr><th style='text-align: left'>{html.escape(title)}</th><td><audio controls "
        f"preload='none' aria-label='{html.escape(title, quote=True)}' "
        f"src='data:{kind};base64,{base64.b64encode(file).decode()}'></audio></td></tr>"
        for title, file, kind in sounds
    )
    return f"<table>{''.join(rows)}</table>"


def encode(waveform: np.ndarray, exact: bool = False) -> tuple[bytes, str]:
    """Return a sound, shape (T,), 16 kHz, as a small file that browsers play, and its kind.

    That is Ogg with Opus. If it is to be exact, or the installed libsndfile has no Opus, it is
    16-bit WAV, of eight times the size. What exceeds 1 is clipped.
    """
    samples = np.clip(np.asarray(waveform, dtype=np.float32), -1, 1)
    opus = not exact and len(samples) and soundfile.check_format("OGG", "OPUS")
    kind = {"format": "OGG", "subtype": "OPUS", "compression_level": LEVEL}
    kind = kind if opus else {"format": "WAV", "subtype": "PCM_16"}
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, **kind)
    return (numbered(file.getvalue()), "audio/ogg") if opus else (file.getvalue(), "audio/wav")


def numbered(ogg: bytes) -> bytes:
    """Give a stream the number 1, in every page; libsndfile draws one by the clock."""
    pages, start = bytearray(ogg), 0
    while start < len(pages):
        lengths = pages[start + 27 : start + 27 + pages[start + 26]]
        end = start + 27 + len(lengths) + sum(lengths)
        struct.pack_into("<I", pages, start + 14, 1)
        struct.pack_into("<I", pages, start + 22, 0)
        struct.pack_into("<I", pages, start + 22, _crc(pages[start:end]))
        start = end
    return bytes(pages)


def _crc(data: bytes) -> int:
    """Return the checksum of an Ogg page: zlib's, with all bits the other way round."""
    crc = zlib.crc32(data.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def described(sounds: Mapping[str, np.ndarray], exact: bool, pictures: bool) -> list[dict]:
    """Return what a page is told of sounds: files, gains to make them equally loud, pictures."""
    loudest, found = 1.0, []
    for title, waveform in sounds.items():
        file, kind = encode(waveform, exact)
        gain = float(audio.level_gain(waveform)) if np.any(waveform) else 1.0
        loudest = max(loudest, gain * float(np.abs(waveform).max(initial=0)))
        found.append({"title": title, "file": file, "kind": kind, "gain": gain})
        if pictures:
            found[-1] |= {"picture": picture(waveform), "rows": ROWS, "columns": COLUMNS}
    return [sound | {"gain": sound["gain"] / loudest} for sound in found]


def picture(waveform: np.ndarray) -> bytes:
    """Return a spectrogram as bytes, ROWS x COLUMNS, high notes first; 0 is black."""
    if not len(waveform):
        return bytes(ROWS * COLUMNS)
    level = plots.spectrogram(waveform, COLUMNS).reshape(ROWS, -1, COLUMNS).max(axis=1)
    top = max(level.max(), plots.SILENCE_DB + plots.RANGE_DB)
    shades = 255 * np.clip(1 + (level[::-1] - top) / plots.RANGE_DB, 0, 1)
    return shades.astype(np.uint8).tobytes()
