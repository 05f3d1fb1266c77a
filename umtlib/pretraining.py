"""The encoder before the decoders: the game with the classifier, played over spectra.

What the encoder must keep, which notes sound, and what it must forget, on which instruments, can be
learnt without any WaveNet. Here each domain's envelope (`umtlib.prediction.Envelope`), which reads
the domain's spectrum from the latent, stands in for its decoder. That is so much cheaper that every
batch can be of all domains. From the second round on the encoder also hears segments as another
domain would have them (`umtlib.conversion`). Then it stands still, and the decoders are trained to
what it says. Not in the paper; preset ``small``. Notebook: ``03_training``.
"""

import copy
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from umtlib import judging, losses, prediction, regression
from umtlib.batches import Batch, Crops, loader
from umtlib.config import TrainingConfig
from umtlib.conversion import convert
from umtlib.corpora.corpus import Corpus
from umtlib.encoder import Encoder
from umtlib.errors import ConfigError
from umtlib.training import autocast
from umtlib.translator import MusicTranslator

ROUNDS = 4  # each with conversions of its own, but the first, which has none
ROWS = 4  # segments of each domain in a batch, and as many converted ones
RATE, CLASSIFIER_RATE, BETAS = 1e-3, 3e-3, (0.5, 0.99)  # of Adam
WARMUP = 100  # steps; the last third cools down
CLASSIFIER_STEPS = 400  # after the game
AVERAGE = 0.995  # decay of the exponential average that the encoder ends as


@dataclass
class Segments:
    """Segments of one domain.

    Attributes
    ----------
    energies : Tensor
        What the encoder's filter bank makes of what it hears, float16, shape (N, filters, steps).
    target : Tensor
        The clean audio as mu-law codes, uint8, shape (N, T).
    """

    energies: Tensor
    target: Tensor

    def latent(self, encoder: Encoder) -> Tensor:
        """Return the latent, shape (N, latent, F)."""
        with torch.no_grad():
            parts = [encoder.above(some.float()) for some in self.energies.split(32)]
        return torch.cat(parts)

    def spectra(self, pool: int) -> Tensor:
        """Return the log power spectra of the clean audio, shape (N, F, BINS)."""
        parts = [prediction.log_spectrum(some.long(), pool) for some in self.target.split(32)]
        return torch.cat(parts)


def read(
    corpus: Corpus, model: MusicTranslator, names: Sequence[str], config: TrainingConfig
) -> Iterator[Batch]:
    """Yield what a pretraining hears: the same whenever it is asked for.

    Parameters
    ----------
    corpus : Corpus
        With all the named domains.
    model : MusicTranslator
        Of its domains each has an equal share of the audio.
    names : sequence of str
        The domains to be read.
    config : TrainingConfig
        ``pretraining_segments``, ``crop``, the augmentation, ``seed``.

    Yields
    ------
    Batch
        A single segment, three crops long.

    Raises
    ------
    ConfigError
        With the first batch, as the next: if there is not a segment for each domain, or a segment
        is shorter than the window of a spectrum.
    TrainingError
        If the corpus lacks a domain.
    """
    count = config.pretraining_segments // len(model.domains) * len(names)
    if count < 1:
        raise ConfigError(
            f"pretraining_segments = {config.pretraining_segments} must be at least one for each "
            f"of {len(model.domains)} domains"
        )
    longer = replace(config, crop=3 * config.crop, batch=1)
    if longer.crop < prediction.SPAN:
        raise ConfigError(f"crop = {config.crop} must be at least {-(-prediction.SPAN // 3)}")
    crops = Crops(corpus, tuple(names), longer, "train", count)
    device = next(model.parameters()).device
    for batch in tqdm(loader(crops, range(count), 0), "reading", leave=False, disable=None):
        yield batch.to(device)


def pretrain(model: MusicTranslator, batches: Iterable[Batch], config: TrainingConfig) -> None:
    """Train the encoder, the classifier and the envelopes of a new model.

    Parameters
    ----------
    model : MusicTranslator
        As `umtlib.config.Preset` asks for: a filter bank in front, a prediction for the decoders.
    batches : iterable of Batch
        All the audio there is to be: ten minutes of each domain or more. It is heard repeatedly.
    config : TrainingConfig
        ``pretraining_steps``, ``confusion_weight``, ``seed``, ``bf16``. The same batches and
        configuration give the same weights.
    """
    own = _gather(model.encoder, batches)
    energies = torch.cat([part.energies for part in own.values()])
    regression.fit(model.encoder, energies, torch.cat([part.target for part in own.values()]))
    fit_envelopes(model, [own], config.seed, share=0.25)
    game, converted = _Game(model, config), {}
    bounds = np.linspace(0, config.pretraining_steps, ROUNDS + 1).astype(int)
    with tqdm(total=config.pretraining_steps, desc="pretraining", disable=None) as bar:
        for number, (first, stop) in enumerate(itertools.pairwise(bounds)):
            if number:
                converted = convert_all(model, own, config.seed + number)
            for step in range(first, stop):
                bar.set_postfix(game.step(step, [own, converted]), refresh=False)
                bar.update()
    model.encoder.load_state_dict(game.average.state_dict())
    fit_classifier(model, own, config.seed)
    fit_envelopes(model, [own, convert_all(model, own, config.seed + ROUNDS)], config.seed)


def add_domain(model: MusicTranslator, batches: Iterable[Batch], config: TrainingConfig) -> None:
    """Fit the envelope of one more domain of a trained model, and nothing else.

    Parameters are those of `pretrain`; the batches are of the new domain.
    """
    own = _gather(model.encoder, batches)
    fit_envelopes(model, [own], config.seed)
    fit_envelopes(model, [own, convert_all(model, own, config.seed)], config.seed)


def refit(
    model: MusicTranslator,
    corpus: Corpus,
    config: TrainingConfig,
    fitted: Collection[str] = (),
    judged: Collection[str] = (),
) -> None:
    """Train envelopes of a finished model anew; all its other weights stay as they are.

    Parameters
    ----------
    model : MusicTranslator
        As for `pretrain`, and trained.
    corpus : Corpus
        With all domains of the model.
    config : TrainingConfig
        As for `read`.
    fitted : collection of str
        Domains whose envelopes are fitted by `regression.fit_envelope`: the hidden layer goes on
        from what it is, the other begins anew.
    judged : collection of str
        Domains whose envelopes are then trained before a judge, by `judging.sharpen`.

    Raises
    ------
    ConfigError
        If the model has no such domain, prediction or filter bank, or no second domain for a
        judge; or as `read` does.
    TrainingError
        If the corpus lacks a domain.
    """
    if unknown := sorted({*fitted, *judged} - {*model.domains}):
        known = ", ".join(model.domains)
        raise ConfigError(f"unknown domain {unknown[0]!r}; this model has {known}")
    front_end, order = model.config.encoder.front_end, model.config.decoder.prediction
    if front_end != "filterbank" or not order:
        raise ConfigError(
            f"a model with front_end {front_end!r} and prediction {order} cannot be refitted, only "
            "one with 'filterbank' and a prediction, such as small"
        )
    if judged and len(model.domains) == 1:
        raise ConfigError("a judge is for a model of two domains or more; this has one")
    for name in {*fitted, *judged}:
        model.decoders[name].envelope.requires_grad_(True)  # a model from a file is frozen
    own = _gather(model.encoder, read(corpus, model, model.domains, config))
    converted = convert_all(model, own, config.seed)
    kinds = [{name: kind[name] for name in fitted} for kind in (own, converted)]
    fit_envelopes(model, kinds, config.seed)
    if not judged:
        return
    pool = model.config.encoder.pool
    latents = {name: part.latent(model.encoder) for name, part in own.items()}
    for name in dict.fromkeys(judged):
        judging.sharpen(
            model.decoders[name].envelope,
            own[name].spectra(pool),
            [latents[name], converted[name].latent(model.encoder)],
            [latents[other] for other in model.domains if other != name],
            pool,
            config.seed,
        )


def _gather(encoder: Encoder, batches: Iterable[Batch]) -> dict[str, Segments]:
    found: dict[str, list[Segments]] = {}
    for batch in batches:
        part = Segments(encoder.front_end.energies(batch.heard).half(), batch.target.byte())
        found.setdefault(batch.domain, []).append(part)
    return {
        name: Segments(
            torch.cat([part.energies for part in parts]), torch.cat([part.target for part in parts])
        )
        for name, parts in found.items()
    }


def convert_all(model: MusicTranslator, own: dict[str, Segments], seed: int) -> dict[str, Segments]:
    """Return all segments as heard after a conversion, each to a random other domain."""
    rng, found = np.random.default_rng(seed), {}
    for name, segments in own.items():
        others = [other for other in model.domains if other != name] or [name]
        heard = [
            convert(model, one[None].long(), name, others[rng.integers(len(others))])
            for one in segments.target
        ]
        energies = [model.encoder.front_end.energies(codes).half() for codes in heard]
        found[name] = Segments(torch.cat(energies), segments.target)
    return found


def fit_envelopes(
    model: MusicTranslator,
    kinds: list[dict[str, Segments]],
    seed: int,
    share: float = 1.0,
) -> None:
    """Fit the envelopes to an encoder that stands still.

    Parameters
    ----------
    model : MusicTranslator
        The envelopes of the domains in ``kinds`` are changed, and nothing else.
    kinds : list of dict of str to Segments
        Segments by domain, the same domains in each.
    seed, share
        See `regression.fit_envelope`.
    """
    for name in kinds[0]:
        parts = [kind[name] for kind in kinds]
        x = torch.cat([part.latent(model.encoder).transpose(1, 2).flatten(0, 1) for part in parts])
        y = torch.cat([part.spectra(model.config.encoder.pool).flatten(0, 1) for part in parts])
        regression.fit_envelope(model.decoders[name].envelope, x, y, seed, share)


def fit_classifier(model: MusicTranslator, own: dict[str, Segments], seed: int) -> None:
    """Train the classifier on an encoder that stands still: what it can still tell is the truth.

    In the game it is always a little behind.
    """
    latents = [own[name].latent(model.encoder) for name in model.domains]
    order = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(model.classifier.parameters(), CLASSIFIER_RATE)
    truth = torch.arange(len(latents)).repeat_interleave(ROWS).to(latents[0].device)
    for _ in range(CLASSIFIER_STEPS):
        rows = [z[torch.randint(len(z), (ROWS,), generator=order)] for z in latents]
        _descend(losses.domain(model.classifier(torch.cat(rows)), truth), adam)


class _Game:
    """The encoder and the envelopes against the classifier."""

    def __init__(self, model: MusicTranslator, config: TrainingConfig):
        self.model, self.config = model, config
        self.rng = np.random.default_rng(config.seed)
        self.average = copy.deepcopy(model.encoder).requires_grad_(False)
        self.envelopes = [decoder.envelope for decoder in model.decoders.values()]
        read = [p for envelope in self.envelopes for p in envelope.parameters()]
        self.encoder = torch.optim.Adam(model.encoder.parameters(), betas=BETAS, foreach=True)
        self.reader = torch.optim.AdamW(read, weight_decay=regression.DECAY, foreach=True)
        self.classifier = torch.optim.Adam(model.classifier.parameters(), betas=BETAS, foreach=True)

    def step(self, number: int, kinds: list[dict[str, Segments]]) -> dict[str, float]:
        """Do one step on a batch of every domain, and return its losses."""
        steps = self.config.pretraining_steps
        rate = min(1.0, (number + 1) / WARMUP, 3 * (1 - number / steps))
        rates = {self.encoder: RATE, self.reader: RATE, self.classifier: CLASSIFIER_RATE}
        for optimizer, largest in rates.items():
            optimizer.param_groups[0]["lr"] = rate * largest
        batch = [segments for kind in kinds if kind for segments in self._draw(kind)]
        domains = torch.arange(len(self.envelopes)).repeat_interleave(ROWS)
        energies = torch.cat([part.energies for part in batch]).float()
        with autocast(self.config, energies.device):
            latent = self.model.encoder.above(energies).float()
        spectra = torch.cat([part.spectra(self.model.config.encoder.pool) for part in batch])
        # The classifier sees the domains' own audio only: what it would learn from conversions is
        # what betrays a conversion.
        played = latent[: len(domains)]
        known = losses.domain(self.model.classifier(played.detach()), domains.to(latent.device))
        _descend(known, self.classifier)
        rows = zip(latent.split(ROWS), spectra.split(ROWS), itertools.cycle(self.envelopes))
        errors = [F.mse_loss(envelope(some), wanted) for some, wanted, envelope in rows]
        confusion = losses.confusion(self.model.classifier(played))
        error = torch.stack(errors).mean()
        _descend(error + self.config.confusion_weight * confusion, self.encoder, self.reader)
        decay = min(AVERAGE, (1 + number) / (10 + number))
        old, new = self.average.parameters(), self.model.encoder.parameters()
        with torch.no_grad():
            torch._foreach_lerp_(list(old), list(new), 1 - decay)
        return {"envelope": error.item(), "classifier": known.item()}

    def _draw(self, kind: dict[str, Segments]) -> Iterator[Segments]:
        for name in self.model.domains:
            rows = torch.from_numpy(self.rng.integers(len(kind[name].target), size=ROWS))
            yield Segments(kind[name].energies[rows], kind[name].target[rows])


def _descend(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
