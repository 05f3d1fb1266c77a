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
LENGTH = 2 * audio.SAMPLE_RATE  # of what is translated
SILENT = 1e-3  # root mean square, -60 dBFS
CLIPPED = 0.01  # share of samples at the ends of the scale


@torch.no_grad()
def validate(
    model: MusicTranslator, corpus: Corpus, domains: tuple[str, ...], samples: int, batches: int = 2
) -> dict[str, dict[str, float]]:
    """Measure a translator on segments of the ``val`` split, always the same ones, in float32.

    A segment has so many samples, as many as the decoders need to know where they are, a batch 8
    segments, or fewer where they are long. Returns per domain ``nats``, the mean cross-entropy per
    sample; ``nats_wrong_latent``, the same with the latent of another segment (as good: the decoder
    ignores the latent); ``accuracy``, of the classifier.
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
    count = len(found["accuracy"])
    right = sum(found["accuracy"].values()) / count
    begun = f"the classifier is right for {right:.0%} of the segments"
    if count > 1 and right > FOOLED_NEVER:
        said.append(f"{begun}: the latent tells the domain; raise the confusion_weight")
    if count > 1 and right <= 1 / count:
        said.append(f"{begun}, as by chance; if it was never better, lower the confusion_weight")
    return said


def listen(model: MusicTranslator, corpus: Corpus, folder: Path, step: int) -> list[str]:
    """Translate the middle of the first held-out track into every domain.

    Writes ``step-<n>.<domain>.wav`` to the folder, as loud as the decoder makes it; returns a
    warning for each translation that is silent or clipped.
    """
    recording = corpus.audio(next(track for track in corpus.tracks if track.split == "val"))
    start = max(0, len(recording) - LENGTH) // 2
    excerpt = recording[start : start + LENGTH] / np.float32(32_768)
    folder.mkdir(parents=True, exist_ok=True)
    heard, said = translation.hear(model, [audio.level(excerpt)], len(excerpt)), []
    sounds = translation.joined(translation.pieces(model, model.domains, heard, dtype="auto"))
    for domain, made in sounds.items():
        audio.write(folder / f"step-{step:08d}.{domain}.wav", made)
        if np.sqrt(np.mean(np.square(made))) < SILENT:
            said.append(f"the translation to {domain} is silent")
        if np.mean(np.abs(made) > 0.99) > CLIPPED:
            said.append(f"the translation to {domain} is clipped")
    return said
