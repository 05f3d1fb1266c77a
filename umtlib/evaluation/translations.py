"""Translations of many paired excerpts, many streams at a time, for reports and listeners."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from umtlib import audio, translation
from umtlib.corpora.pairs import Pair
from umtlib.errors import EvaluationError
from umtlib.generation.perform import Heard, perform
from umtlib.translator import MusicTranslator

Progress = Callable[[str, int, int], None]
_STREAMS = 32  # excerpts generated at a time


def choose(pairs: Sequence[Pair], number: int | None) -> list[Pair]:
    """Return so many pairs, taken from the sources in turn; all if ``number`` is None.

    Raises
    ------
    EvaluationError
        If the number is less than 1 or there are no pairs.
    """
    if not pairs or (number is not None and number < 1):
        raise EvaluationError(f"{number} of {len(pairs)} paired excerpts: nothing to evaluate")
    turn: dict[str, int] = {}
    ranked = []
    for place, pair in enumerate(pairs):
        group = pair.source.split("/")[0]  # the unseen timbres take turns as one source
        turn[group] = turn.get(group, -1) + 1
        ranked.append((turn[group], place))
    kept = sorted(place for _, place in sorted(ranked)[:number])
    return [pairs[place] for place in kept]


def translate_pairs(
    model: MusicTranslator,
    pairs: Sequence[Pair],
    domains: Sequence[str] | None = None,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    backend: str = "auto",
    progress: Progress | None = None,
) -> dict[tuple[str, str], np.ndarray]:
    """Translate every excerpt to every domain (or to those named), many streams at a time.

    Each result is the one that `umtlib.translate` gives for this excerpt, domain and seed, but for
    the rounding of sums; which codes are drawn can differ where two are about equally likely.

    Returns
    -------
    dict
        From (excerpt's id, domain) to float32 waveforms, shape (T,).
    """
    made, done, domains = {}, 0, domains or model.domains
    settings = {"temperature": temperature, "backend": backend}
    total = len(pairs) * len(domains)

    def told(streams: int, share: float) -> None:
        tell(progress, "translating", round(100 * (done + streams * share)), 100 * total)

    for first in range(0, len(pairs), _STREAMS):
        for some, samples, heard in _heard(model, pairs[first : first + _STREAMS]):
            for domain in domains:
                rows = _performed(model, domain, heard, seed, partial(told, len(some)), **settings)
                cut = zip(some, samples, rows, strict=True)
                made |= {(pair.id, domain): row[:length].numpy() for pair, length, row in cut}
                done += len(some)
    return made


def _heard(
    model: MusicTranslator, pairs: Sequence[Pair]
) -> Iterator[tuple[list[Pair], list[int], Heard]]:
    """Encode excerpts; yield those of one length together, with their samples."""
    pool = model.config.encoder.pool
    sounds = [audio.level(pair.audio() / np.float32(32_768)) for pair in pairs]
    found = [translation.hear(model, [sound], len(sound)) for sound in sounds]
    for frames in sorted({one.latent.shape[2] for one in found}):  # of one corpus: all alike
        some = [i for i, one in enumerate(found) if one.latent.shape[2] == frames]
        latent, levels = (
            torch.cat([getattr(found[i], name) for i in some]) for name in ("latent", "levels")
        )
        samples = [found[i].samples for i in some]
        yield [pairs[i] for i in some], samples, Heard(latent, frames * pool, levels)


def _performed(
    model: MusicTranslator,
    domain: str,
    heard: Heard,
    seed: int,
    tell: Callable[[float], None],
    **settings,
) -> torch.Tensor:
    """Return the streams of one domain, shape (B, T); each is drawn as if it were alone."""
    states = [translation.seeded(seed, len(heard.latent))]
    pieces = perform(
        model, [domain], heard.split(model.config.encoder.pool), states=states,
        progress=lambda samples: tell(samples / heard.samples), **settings,
    )  # fmt: skip
    return torch.cat([piece for _, piece in pieces], dim=1)


def tell(progress: Progress | None, stage: str, done: int, total: int) -> None:
    """Call ``progress``, if there is any, with a stage, steps done and steps in all."""
    if progress is not None:
        progress(stage, done, total)
