"""What the network is shown at step n: a function of the seed and n alone.

That is all that exact resume needs: no state of a data loader has to be saved, and any number of
worker processes gives the same batches.
"""

import signal
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from umtlib import mulaw
from umtlib.augment import equalise, pitch_modulation
from umtlib.config import TrainingConfig
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError


@dataclass(frozen=True)
class Batch:
    """Segments of one domain, as mu-law codes, int64, each of shape (B, T).

    Attributes
    ----------
    domain : str
        Where all segments come from.
    heard : Tensor
        What the encoder hears: augmented.
    given : Tensor
        What the decoder is given as past samples: the target, or the target with noise, or with
        silence in place of its beginning.
    target : Tensor
        What the decoder must predict: clean.
    """

    domain: str
    heard: Tensor
    given: Tensor
    target: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        codes = (self.heard, self.given, self.target)
        return Batch(self.domain, *(tensor.to(device) for tensor in codes))


class Crops(Dataset):
    """The batches of a run, by step.

    Parameters
    ----------
    corpus : Corpus
        Where the segments come from.
    domains : sequence of str
        The domains that take turns: batch n is of ``domains[n % K]``.
    config : TrainingConfig
        Segment length, batch size, augmentation, seed.
    split : str
        Which part of the corpus. Only ``"train"`` is augmented.
    stop : int
        Number of batches.
    pair : str
        The model's mu-law pair; see `umtlib.mulaw`.

    Raises
    ------
    TrainingError
        If a domain has no track in the split.
    """

    def __init__(
        self,
        corpus: Corpus,
        domains: tuple[str, ...],
        config: TrainingConfig,
        split: str,
        stop: int,
        pair: str = "torchaudio",
    ):
        self.corpus, self.domains, self.config, self.stop = corpus, domains, config, stop
        self.split, self.pair = split, pair
        self.tracks = {name: corpus.select(name, split) for name in domains}
        for name, tracks in self.tracks.items():
            if not tracks:
                raise TrainingError(
                    f"{corpus.folder} has no {split!r} track of domain {name!r}; it has "
                    f"{', '.join(corpus.domains)}"
                )
        # Every second of a domain is equally likely: a track's chance is its share of the time.
        shares = {name: np.cumsum([t.seconds for t in ts]) for name, ts in self.tracks.items()}
        self.shares = {name: sums / sums[-1] for name, sums in shares.items()}

    def __len__(self) -> int:
        return self.stop

    def __getitem__(self, step: int) -> Batch:
        # The split is part of the seed, so that validation never repeats training's random numbers.
        rng = np.random.default_rng([self.config.seed, len(self.split), step])
        domain = self.domains[step % len(self.domains)]
        rows = [self._row(domain, rng, step) for _ in range(self.config.batch)]
        heard, given, target = (torch.stack(column) for column in zip(*rows, strict=True))
        return Batch(domain, heard, given, target)

    def _row(self, domain: str, rng: np.random.Generator, step: int) -> tuple[Tensor, ...]:
        waveform = self._crop(domain, rng)
        target = self._to_codes(waveform)
        if self.split != "train":
            return target, target, target
        heard = waveform
        if self.config.augment:
            heard = pitch_modulation(heard, rng)
        if self.config.equalise:
            heard = equalise(heard, rng, self.config.equalise)
        noise = rng.choice(self.config.input_noise) * rng.standard_normal(len(target))
        given = (target + torch.from_numpy(noise).round().long()).clamp(0, mulaw.CODES - 1)
        if self.config.input_silence and rng.random() < self.config.input_silence:
            # A generator begins in silence: to leave it, it must have learnt to heed the latent.
            given[: rng.integers(len(given))] = mulaw.SILENCE
        return self._to_codes(heard), given, target

    def _crop(self, domain: str, rng: np.random.Generator) -> np.ndarray:
        number = self.shares[domain].searchsorted(rng.random(), side="right")
        audio = self.corpus.audio(self.tracks[domain][number])
        start = int(rng.integers(max(1, len(audio) - self.config.crop + 1)))
        crop = np.asarray(audio[start : start + self.config.crop], dtype=np.float32) / 32_768
        return np.pad(crop, (0, self.config.crop - len(crop)))

    def _to_codes(self, waveform: np.ndarray) -> Tensor:
        return mulaw.encode(torch.from_numpy(waveform), self.pair)


def loader(crops: Crops, indices: range, workers: int) -> DataLoader:
    """Yield the batches of the given indices, prepared by worker processes."""
    return DataLoader(
        crops,
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=8 if workers else None,
    )


def _start_worker(_number: int) -> None:
    torch.set_num_threads(1)
    # A terminal sends Ctrl-C to the workers too. They stop when the run does, which saves first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
