"""What reports and packs are made of: excerpts and their translations."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from umtlib import audio
from umtlib.corpora import Progress
from umtlib.corpora.corpus import Corpus
from umtlib.corpora.pairs import PAIR_SECONDS, PAIRS, Pair, read_pairs
from umtlib.errors import EvaluationError
from umtlib.generation import translation
from umtlib.generation.hearing import Heard
from umtlib.generation.perform import perform
from umtlib.translator import MusicTranslator

_STREAMS = 32  # excerpts generated at a time
Made = Mapping[tuple[str, str], np.ndarray]  # by excerpt's id and domain: float32, (T,)


@dataclass(frozen=True, eq=False)
class HeldOut(Pair):
    """An excerpt of a corpus without paired ones: no score, and no other instrument plays it."""

    sound: np.ndarray

    def audio(self, name: str | None = None) -> np.ndarray:
        """Return it, int16, shape (T,); the name is that of its domain."""
        return self.sound


def excerpts_of(data: str | os.PathLike) -> list[Pair]:
    """Return a corpus's paired excerpts, or the middles of three held-out tracks of each domain."""
    if (Path(data) / PAIRS).is_file():
        return read_pairs(data)
    corpus = Corpus(data)
    held_out = sorted((t for t in corpus.tracks if t.split != "train"), key=lambda t: -t.seconds)
    tracks = [t for name in corpus.domains for t in [t for t in held_out if t.domain == name][:3]]
    sounds = [corpus.audio(track) for track in tracks]
    length = min([round(PAIR_SECONDS * audio.SAMPLE_RATE), *map(len, sounds)])
    return [
        HeldOut(
            t.file, t.domain, t.file, "", length / audio.SAMPLE_RATE, False, (),
            {t.domain: t.file}, {}, corpus.folder, x[(len(x) - length) // 2 :][:length],
        )
        for t, x in zip(tracks, sounds, strict=True)
    ]  # fmt: skip


def group(source: str) -> str:
    """Return a source's name in the tables: its domain, or ``"unseen"``."""
    return source.split("/")[0]


def choose(pairs: Sequence[Pair], number: int | None) -> list[Pair]:
    """Return so many pairs, taken from the groups of sources in turn; all if ``number`` is None.

    If there are none, it raises EvaluationError.
    """
    if not pairs:
        raise EvaluationError("no excerpt to evaluate: none is held out, or of another domain")
    seen = [group(pair.source) for pair in pairs]
    turns = sorted(range(len(pairs)), key=lambda place: seen[:place].count(seen[place]))
    return [pairs[place] for place in sorted(turns[:number])]


def translate_pairs(
    model: MusicTranslator,
    pairs: Sequence[Pair],
    domains: Sequence[str] | None = None,
    *,
    seed: int = 0,
    progress: Progress = lambda *_: None,
    **settings,
) -> Made:
    """Translate excerpts, equally long, to every domain (or to those named), many at a time.

    Gives what `umtlib.translate` brings to one level, but for the rounding of sums: which codes are
    drawn can differ where two are about equally likely. The settings are temperature and backend.
    """
    domains, made, pool = domains or model.domains, {}, model.config.encoder.pool
    for first in range(0, len(pairs), _STREAMS):
        some = pairs[first : first + _STREAMS]
        sounds = [audio.level(pair.audio() / np.float32(32_768)) for pair in some]
        heard = [translation.hear(model, [sound], len(sound)) for sound in sounds]
        latent, levels = (torch.cat([getattr(x, n) for x in heard]) for n in ("latent", "levels"))
        together = Heard(latent, len(sounds[0]), levels)
        for domain in domains:
            progress("translating", len(made), len(pairs) * len(domains))
            states = [translation.seeded(seed, len(some))]
            pieces = perform(model, [domain], together.split(pool), states=states, **settings)
            rows = torch.cat([piece for _, piece in pieces], dim=1).numpy()
            made |= {(pair.id, domain): row for pair, row in zip(some, rows, strict=True)}
    progress("translating", len(made), len(made))
    return made
