"""How a run is doing while it trains: held-out losses, a translated excerpt, and what is wrong.

Notebook: ``05_training_six_domains``.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from umtlib import audio, losses
from umtlib.config import TrainingConfig
from umtlib.corpora.batches import Crops
from umtlib.corpora.corpus import Corpus
from umtlib.generation import translation
from umtlib.translator import MusicTranslator

VALIDATED = 2**17  # samples of a batch, at most, that validation shows
UNUSED = 0.01  # nats per sample that the right latent must be better than a wrong one
FOOLED_NEVER = 0.95  # accuracy of the classifier above which the encoder hides nothing
SECONDS = 2.0
SILENT = 1e-3  # root mean square, -60 dBFS
CLIPPED = 0.01  # share of samples at the ends of the scale


@torch.no_grad()
def validate(
    model: MusicTranslator,
    corpus: Corpus,
    domains: tuple[str, ...],
    samples: int,
    batches: int = 2,
) -> dict[str, dict[str, float]]:
    """Measure a translator on held-out segments, always the same ones, in float32.

    Parameters
    ----------
    model : MusicTranslator
        What to measure.
    corpus : Corpus
        Must have tracks of the domains in its ``val`` split.
    domains : tuple of str
        Which of its domains.
    samples : int
        Length of a segment: as long as the decoders need to know where they are.
    batches : int
        Per domain, each of 8 segments, or of fewer where they are long.

    Returns
    -------
    dict
        ``nats``: per domain, mean cross-entropy per sample; ``nats_wrong_latent``: the same with
        the latent of another segment (as good: the decoder ignores the latent); ``accuracy``: of
        the classifier.
    """
    config = TrainingConfig(crop=samples, batch=min(8, max(2, VALIDATED // samples)))
    number = batches * len(domains)
    crops = Crops(corpus, domains, config, "val", number, model.config.mulaw)
    device, sums = next(model.parameters()).device, defaultdict(list)
    for batch in (crops[n].to(device) for n in range(number)):
        decoder, latent = model.decoders[batch.domain], model.encode(batch.heard)
        right, wrong = (decoder(batch.target, z) for z in (latent, latent.roll(1, dims=0)))
        hits = model.classifier(latent).argmax(1) == model.domains.index(batch.domain)
        found = [losses.reconstruction(x, batch.target).item() for x in (right, wrong)]
        sums[batch.domain].append([*found, hits.float().mean().item()])
    means = {name: torch.tensor(rows).mean(0).tolist() for name, rows in sums.items()}
    keys = ("nats", "nats_wrong_latent", "accuracy")
    return {
        key: {name: round(row[i], 4) for name, row in means.items()} for i, key in enumerate(keys)
    }


def complaints(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say in plain words what a validation shows to be going wrong."""
    said = [
        f"the decoder of {name} does not use the latent: another segment's is as good"
        for name, nats in found["nats"].items()
        if found["nats_wrong_latent"][name] - nats < UNUSED
    ]
    accuracy, count = found["accuracy"].values(), len(found["accuracy"])
    right = sum(accuracy) / count
    if count > 1 and right > FOOLED_NEVER:
        said.append(
            f"the classifier is right for {right:.0%} of the segments: the latent still tells the "
            "domain; a larger confusion_weight would hide it"
        )
    elif count > 1 and right <= 1 / count:
        said.append(
            f"the classifier is right for {right:.0%} of the segments, no more than by chance: "
            "either the latent hides the domain, or the classifier has learned nothing; if it was "
            "never better, lower the confusion_weight"
        )
    return said


def listen(model: MusicTranslator, corpus: Corpus, folder: Path, step: int) -> list[str]:
    """Translate the middle of the first held-out track into every domain.

    Writes ``step-<n>.<domain>.wav`` to the folder; returns a warning for each translation that is
    silent or clipped.
    """
    recording = corpus.audio(next(track for track in corpus.tracks if track.split == "val"))
    start = max(0, len(recording) // 2 - int(SECONDS * audio.SAMPLE_RATE / 2))
    excerpt = recording[start : start + int(SECONDS * audio.SAMPLE_RATE)] / np.float32(32_768)
    made = translation.translate(model, excerpt, audio.SAMPLE_RATE)
    folder.mkdir(parents=True, exist_ok=True)
    for domain, waveform in made.items():
        audio.write(folder / f"step-{step:08d}.{domain}.wav", waveform)
    return [text for domain, waveform in made.items() for text in unheard(domain, waveform)]


def unheard(domain: str, waveform: np.ndarray) -> list[str]:
    """Say whether a translation is silent or clipped."""
    silent = np.sqrt(np.mean(np.square(waveform))) < SILENT
    faults = {"silent": silent, "clipped": np.mean(np.abs(waveform) > 0.99) > CLIPPED}
    return [f"the translation to {domain} is {name}" for name, there in faults.items() if there]
