"""What are listeners given? Blinded packs for a test of opinion scores and for a lineup.

Conventions. A pack is a folder of levelled 16 kHz WAV files whose names tell nothing, ``sheet.csv``
to be filled in (one copy per rater) and ``key.csv``, which is not for the raters. The order follows
from the seed.

* **Opinion scores**: ``000.wav`` and so on, in random order; ``source-00.wav``..., the open source.
  Systems: translation, source, true rendering (the hidden reference), that through 8-bit mu-law and
  that below 1 kHz (the anchor that must be found bad).
* **Lineup**: ``lineup-00-1.wav`` to ``lineup-00-K.wav``, and so on: one excerpt by the decoders of
  all K domains, its own among them, in random order; the answer is a number from 1 to K.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.signal

from umtlib import audio, files
from umtlib.errors import EvaluationError
from umtlib.evaluation import listening
from umtlib.evaluation.features import excerpt
from umtlib.evaluation.tables import write_csv
from umtlib.evaluation.translations import choose, excerpts_of, group, translate_pairs
from umtlib.translator import MusicTranslator

Clips = Mapping[str, Mapping[str, np.ndarray]]  # by name and system; 16 kHz
KEY, SHEET = "key.csv", "sheet.csv"
OPINION_KEY = ("stimulus", "clip", "group", "system")
LINEUP_KEY = ("lineup", "number", "clip", "domain", "heard")  # the source's domain, the decoder's
OPINION_SHEET = ("rater", "stimulus", "source", "score")
LINEUP_SHEET = ("rater", "lineup", "answer")


def opinion(
    model: MusicTranslator,
    data: str | os.PathLike,
    target: str,
    out: str | os.PathLike,
    *,
    excerpts: int | None = None,
    seed: int = 0,
    **settings,
) -> Path:
    """Write a pack for a test of opinion scores: excerpts of a corpus, translated to one domain.

    By default all that come from other domains are used, or else so many, spread over the sources;
    the settings are those of `umtlib.evaluation.translations.translate_pairs`. If the target is no
    domain of the model, or no excerpt is left, it raises EvaluationError.
    """
    if target not in model.domains:
        raise EvaluationError(f"{target!r}: a pack has one target, of {', '.join(model.domains)}")
    with files.new_folder(out, EvaluationError) as part:
        pairs = choose([pair for pair in excerpts_of(data) if pair.source != target], excerpts)
        made = translate_pairs(model, pairs, (target,), seed=seed, **settings)
        clips = {
            pair.id: {"source": pair.audio(), "translation": made[pair.id, target]}
            | ({"truth": pair.audio(target)} if target in pair.files else {})
            for pair in pairs
        }
        write_opinion(clips, part, {pair.id: group(pair.source) for pair in pairs}, seed)
    return Path(out)


def lineup(
    model: MusicTranslator,
    data: str | os.PathLike,
    out: str | os.PathLike,
    *,
    excerpts: int | None = None,
    seed: int = 0,
    **settings,
) -> Path:
    """Write a pack for a lineup of excerpts from the model's own domains; as `opinion`."""
    with files.new_folder(out, EvaluationError) as part:
        pairs = choose([p for p in excerpts_of(data) if p.source in model.domains], excerpts)
        made = translate_pairs(model, pairs, seed=seed, **settings)
        clips = {p.id: {name: made[p.id, name] for name in model.domains} for p in pairs}
        write_lineup(clips, part, {pair.id: pair.source for pair in pairs}, seed)
    return Path(out)


def write_opinion(clips: Clips, folder: Path, groups: Mapping[str, str], seed: int) -> None:
    """Write the files of a test of opinion scores to a folder that is there.

    Clips have waveforms by system. From ``"truth"``, where there is one, ``"mulaw"`` and ``"low"``
    are made; ``"source"`` is also given openly.
    """
    stimuli, opened, keys, sheet = [], {}, [], []
    for number, (clip, systems) in enumerate(clips.items()):
        sounds = {system: excerpt(sound) for system, sound in systems.items()}
        if "source" in sounds:
            opened[clip] = f"source-{number:02d}.wav"
            audio.write(folder / opened[clip], sounds["source"].waveform)
        if "truth" in sounds:
            true = sounds["truth"]
            sounds |= {"mulaw": true.coded, "low": excerpt(low(true.waveform))}
        stimuli += [(clip, system, sound) for system, sound in sounds.items()]
    for number, place in enumerate(np.random.default_rng(seed).permutation(len(stimuli))):
        clip, system, sound = stimuli[place]
        name = f"{number:03d}.wav"
        audio.write(folder / name, sound.waveform)
        keys.append((name, clip, groups[clip], system))
        sheet.append(("", name, opened.get(clip, ""), ""))
    write_csv(folder / KEY, OPINION_KEY, keys)
    write_csv(folder / SHEET, OPINION_SHEET, sheet)


def low(waveform: np.ndarray) -> np.ndarray:
    """Return what a waveform, 16 kHz, shape (T,), has below 1 kHz (MUSHRA's anchor: 3.5)."""
    filter_ = scipy.signal.butter(8, 1_000, fs=audio.SAMPLE_RATE, output="sos")
    return scipy.signal.sosfiltfilt(filter_, waveform).astype(np.float32)


def write_lineup(clips: Clips, folder: Path, sources: Mapping[str, str], seed: int) -> None:
    """Write the files of a lineup; clips have waveforms by domain, and come from the sources."""
    rng, keys, sheet = np.random.default_rng(seed), [], []
    for place, clip in enumerate(rng.permutation(sorted(clips)).tolist()):
        name = f"lineup-{place:02d}"
        for number, heard in enumerate(rng.permutation(sorted(clips[clip])).tolist(), start=1):
            audio.write(folder / f"{name}-{number}.wav", excerpt(clips[clip][heard]).waveform)
            keys.append((name, number, clip, sources[clip], heard))
        sheet.append(("", name, ""))
    write_csv(folder / KEY, LINEUP_KEY, keys)
    write_csv(folder / SHEET, LINEUP_SHEET, sheet)


def unblind(key: str | os.PathLike, sheets: Sequence[str | os.PathLike]) -> list[dict]:
    """Join the filled-in sheets of a pack, of either kind, with its key, for `listening`.

    Lines that nobody answered must be removed. If a sheet names what is not in the key, it raises
    EvaluationError.
    """
    if choices(key):
        columns, item = LINEUP_SHEET, ("lineup", "answer")
        known = {
            (row["lineup"], row["number"]):
                {"clip": row["clip"], "domain": row["domain"], "answer": row["heard"]}
            for row in listening.read(key, LINEUP_KEY)
        }  # fmt: skip
    else:
        columns, item = ("rater", "stimulus", "score"), ("stimulus",)
        rows = listening.read(key, OPINION_KEY)
        known = {(row["stimulus"],): {name: row[name] for name in OPINION_KEY[1:]} for row in rows}
    found = []
    for sheet, row in [(one, row) for one in sheets for row in listening.read(one, columns)]:
        if (wanted := tuple(row[name] for name in item)) not in known:
            raise EvaluationError(
                f"{sheet}: {'-'.join(wanted)!r} is not in {key}; is it the key of this pack?"
            )
        given = {name: row[name] for name in ("rater", "score") if name in row}
        found.append(given | known[wanted])
    return found


def choices(key: str | os.PathLike) -> list[str]:
    """Return the domains of a lineup's key, sorted; none for a test of opinion scores."""
    return sorted({row["heard"] for row in listening.read(key, ("clip",)) if "heard" in row})
