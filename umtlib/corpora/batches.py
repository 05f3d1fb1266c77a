"""What the network is shown at step n: a function of the seed and n alone.

That is all that exact resume needs: no state of a data loader is saved, and any number of worker
processes gives the same batches.
"""

import signal
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from umtlib import mulaw
from umtlib.augment import pitch_modulation
from umtlib.config import TrainingConfig
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError


@dataclass(frozen=True)
class Batch:
    """Segments of one domain, as mu-law codes, int64, each of shape (B, T)."""

    domain: str
    heard: Tensor  # by the encoder: augmented
    target: Tensor  # what the decoder is given as past samples, and must predict: clean

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(self.domain, self.heard.to(device), self.target.to(device))

    def split(self, parts: int) -> list["Batch"]:
        """Return the batch in equal parts."""
        rows = zip(self.heard.chunk(parts), self.target.chunk(parts), strict=True)
        return [Batch(self.domain, *row) for row in rows]


class Segments:
    """Draws segments of a split of a corpus: every second of a domain is equally likely.

    A domain without a track in the split raises a TrainingError.
    """

    def __init__(self, corpus: Corpus, domains: tuple[str, ...], split: str = "train"):
        self.corpus, self.tracks, self.shares = corpus, {}, {}
        for name in domains:
            self.tracks[name] = tracks = corpus.select(name, split)
            if not tracks:
                raise TrainingError(f"{corpus.folder} has no {split!r} track of domain {name!r}; "
                                    f"it has {', '.join(corpus.domains)}")  # fmt: skip
            ends = np.cumsum([track.seconds for track in tracks])
            self.shares[name] = ends / ends[-1]  # a track's chance is its share of the time

    def __call__(self, domain: str, samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return a waveform in [-1, 1], float32, (samples,); silence follows a short track."""
        number = self.shares[domain].searchsorted(rng.random(), side="right")
        audio = self.corpus.audio(self.tracks[domain][number])
        start = int(rng.integers(max(1, len(audio) - samples + 1)))
        crop = np.asarray(audio[start : start + samples], dtype=np.float32) / 32_768
        return np.pad(crop, (0, samples - len(crop)))


class Crops(Dataset):
    """The `stop` batches of a run, by number: batch n is of ``domains[n % K]``.

    Only the split ``"train"`` is augmented. `pair` is the model's of `umtlib.mulaw`.
    """

    def __init__(
        self, corpus: Corpus, domains: tuple[str, ...], config: TrainingConfig, split: str,
        stop: int, pair: str = "torchaudio",
    ):  # fmt: skip
        self.draw = Segments(corpus, domains, split)
        self.domains, self.config, self.split = domains, config, split
        self.stop, self.pair = stop, pair

    def __len__(self) -> int:
        return self.stop

    def __getitem__(self, number: int) -> Batch:
        config, domain = self.config, self.domains[number % len(self.domains)]
        # The split is part of the seed, so that validation never repeats training's random numbers.
        rng = np.random.default_rng([config.seed, len(self.split), number])
        augmented, heard, target = config.augment and self.split == "train", [], []
        for _ in range(config.batch):
            target.append(self.draw(domain, config.crop, rng))
            heard.append(pitch_modulation(target[-1], rng) if augmented else target[-1])
        codes = (mulaw.encode(torch.from_numpy(np.stack(x)), self.pair) for x in (heard, target))
        return Batch(domain, *codes)


def loader(crops: Crops, indices: range, workers: int) -> DataLoader:
    """Yield the batches of the given indices, prepared by worker processes."""
    settings = {"prefetch_factor": 8, "worker_init_fn": _start_worker} if workers else {}
    return DataLoader(crops, batch_size=None, sampler=indices, num_workers=workers, **settings)


def _start_worker(_number: int) -> None:
    torch.set_num_threads(1)
    # A terminal sends Ctrl-C to the workers too. They stop when the run does, which saves first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
