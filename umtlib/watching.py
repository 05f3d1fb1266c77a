"""What a run sounds like while it trains: a translated excerpt, its picture, what is wrong with it.

Notebook: ``03_training``.
"""

from pathlib import Path

import numpy as np

from umtlib import audio, translation
from umtlib.corpora.corpus import Corpus
from umtlib.notebook import plots
from umtlib.translator import MusicTranslator

SECONDS = 2.0
SILENT = 1e-3  # root mean square, -60 dBFS
CLIPPED = 0.01  # share of samples at the ends of the scale


def listen(model: MusicTranslator, corpus: Corpus, folder: Path, step: int) -> list[str]:
    """Translate one held-out excerpt into every domain, and write sounds and a picture.

    Parameters
    ----------
    model : MusicTranslator
        As it is at this step.
    corpus : Corpus
        The excerpt is the middle of the first track of its ``val`` split.
    folder : Path
        ``step-<n>.<domain>.wav`` and ``step-<n>.png`` are written there.
    step : int
        For the names.

    Returns
    -------
    list of str
        A warning for each translation that is silent or clipped.
    """
    track = next(track for track in corpus.tracks if track.split == "val")
    recording = corpus.audio(track)
    start = max(0, len(recording) // 2 - int(SECONDS * audio.SAMPLE_RATE / 2))
    excerpt = recording[start : start + int(SECONDS * audio.SAMPLE_RATE)] / np.float32(32_768)
    made = translation.translate(model, excerpt, audio.SAMPLE_RATE)
    folder.mkdir(parents=True, exist_ok=True)
    for domain, waveform in made.items():
        audio.write(folder / f"step-{step:08d}.{domain}.wav", waveform)
    picture = plots.comparison({f"input: {track.domain}": excerpt} | made, f"step {step:,}")
    plots.save(picture, folder / f"step-{step:08d}.png")
    return [text for domain, waveform in made.items() for text in complaints(domain, waveform)]


def complaints(domain: str, waveform: np.ndarray) -> list[str]:
    """Say whether a translation is silent or clipped."""
    found = []
    if np.sqrt(np.mean(np.square(waveform))) < SILENT:
        found.append(f"the translation to {domain} is silent")
    if np.mean(np.abs(waveform) > 0.99) > CLIPPED:
        found.append(f"the translation to {domain} is clipped")
    return found
