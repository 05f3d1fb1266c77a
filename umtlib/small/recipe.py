"""How two processor cores train a translator in an hour or two: stages, each resumable.

1. *begin*: the encoder is fitted by least squares (`umtlib.small.regression`).
2. *frames*: the encoder stands still, and each domain's frame model learns to paint its domain.
3. *game*: encoder, classifier and frame models together: the paper's step, with spectra in place of
   waveforms. That is so much cheaper that every batch can be of all domains.
4. *frames* again, with the encoder as it has become, on more audio and on conversions.
5. *shared*: one WaveNet learns from all domains; from here on encoder and frame models stand still.
6. *own*: each domain's WaveNet goes on from it, on its own.

Every step is a function of the seed, its number and the weights, so a run that is interrupted ends
in the same weights. Not in the paper; preset ``small``.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib import losses, mulaw
from umtlib.corpora.corpus import Corpus
from umtlib.decoder import Decoder
from umtlib.guide import Told
from umtlib.small import regression
from umtlib.small.frames import FOLLOWING, FrameModel
from umtlib.small.hearing import heard
from umtlib.small.spectra import BINS, FINE, Filter, events, log_spectrum
from umtlib.translator import MusicTranslator

SEGMENT = 51_200  # samples that a frame model hears at a time: 3.2 s
SHORT = 25_600  # the same in the game, where variety counts more than memory
ROWS = 24  # segments in a batch of a frame model
EACH = 3  # segments of each domain in a batch of the game, and as many conversions
WINDOW = 6_400  # samples that a WaveNet is shown at a time
TAKEN = 4  # windows taken of a segment
CONVERTED = 0.5  # share of the segments whose conversion the encoder hears, for the WaveNets
STRENGTHS = 0.6, 1.0  # of a conversion's filter: part of the way
FRAME_RATE, ENCODER_RATE, CLASSIFIER_RATE, WAVENET_RATE = 2e-3, 7e-4, 3e-3, 2e-3
EVENT_WEIGHT, POSITIVE = 5.0, 3.0  # of the listener's error; in it, of where an event is
CONFUSION_WEIGHT = 1.0
DROPPED, INVENTED, SHIFTED = 0.15, 0.003, 0.3  # what is done to true events that a player is told
NOISE = 0.0, 0.0, 0.0, 1.0, 2.0, 4.0  # codes; a window's past gets one of these
SILENT = 0.05  # share of windows whose past is silent up to a random sample
AVERAGE, WAVENET_AVERAGE = 0.99, 0.999  # decay of the exponential averages that are kept
WARMUP = 50  # steps


@dataclass(frozen=True)
class Recipe:
    """How long each stage takes, in steps, and how much audio it hears.

    Attributes
    ----------
    seed : int
        All that is random follows from it.
    first, again : int
        Steps of each domain's frame model, before and after the game.
    game, shared, own : int
        Steps of the game, of the shared WaveNet, and of all WaveNets on their own together.
    segments : int
        Segments of each domain that frame models learn from; a third of them the first time.
    """

    seed: int = 0
    first: int = 250
    game: int = 3_000
    again: int = 1_000
    shared: int = 4_000
    own: int = 16_000
    segments: int = 600


class Heard(NamedTuple):
    """Segments of one domain: clean codes, uint8, (N, T), and latents of V versions, (N, V, L, F)."""

    target: Tensor
    latents: Tensor


_FREQUENCY = torch.linspace(0, 8_000, BINS)
WEIGHTS = 1 / (1 + _FREQUENCY / 1_000)  # of a bin's error: about that of the ear
WEIGHTS = WEIGHTS / WEIGHTS.mean()


def edged(latent: Tensor) -> Tensor:
    """Repeat the first and the last frame of (B, L, F): (B, L, F + 2)."""
    return torch.cat([latent[:, :, :1], latent, latent[:, :, -1:]], dim=2)


def painting(model: FrameModel, latent: Tensor, spectra: Tensor, rng) -> tuple[Tensor, Tensor]:
    """Return a frame model's errors: of the spectra, (B,), and of the events, a number.

    The player is told the true events, but not reliably: in use it is told the listener's.
    """
    true = events(spectra)
    mixed, logits, _ = model.listen(edged(latent))
    wide = F.max_pool1d(true.float().transpose(1, 2), 3, 1, 1).transpose(1, 2)
    missed = F.binary_cross_entropy_with_logits(logits, wide, pos_weight=torch.tensor(POSITIVE))
    painted, _ = model.play(mixed, F.pad(unreliable(true, rng), (0, 0, 0, FOLLOWING)))
    return ((painted - spectra).square() * WEIGHTS).mean(dim=(1, 2)), missed


def unreliable(true: Tensor, rng: np.random.Generator) -> Tensor:
    """Drop some events, (B, N, BANDS), invent others, and shift all by a fine frame half the time."""
    told = true & torch.from_numpy(rng.random(true.shape) > DROPPED)
    told |= torch.from_numpy(rng.random(true.shape) < INVENTED)
    return told.roll(int(rng.choice([-1, 1])), 1) if rng.random() < SHIFTED else told


class Segments:
    """Draws segments of a corpus: every second of a domain is equally likely."""

    def __init__(self, corpus: Corpus, domains: tuple[str, ...]):
        self.corpus = corpus
        self.tracks = {name: corpus.select(name, "train") for name in domains}
        sums = {name: np.cumsum([t.seconds for t in ts]) for name, ts in self.tracks.items()}
        self.shares = {name: ends / ends[-1] for name, ends in sums.items()}

    def __call__(self, domain: str, count: int, samples: int, rng: np.random.Generator) -> Tensor:
        """Return waveforms in [-1, 1], shape (count, samples), as mu-law keeps them."""
        return mulaw.decode(mulaw.encode(torch.stack([self._one(domain, samples, rng) for _ in range(count)])))

    def _one(self, domain: str, samples: int, rng: np.random.Generator) -> Tensor:
        number = self.shares[domain].searchsorted(rng.random(), side="right")
        audio = self.corpus.audio(self.tracks[domain][number])
        start = int(rng.integers(max(1, len(audio) - samples + 1)))
        crop = np.asarray(audio[start : start + samples], dtype=np.float32) / 32_768
        return torch.from_numpy(np.pad(crop, (0, samples - len(crop))))


def converted(waveforms: Tensor, spectra: Tensor, hop: int, rng: np.random.Generator) -> Tensor:
    """Filter (B, T) towards what another domain's frame model painted: a rough translation.

    This is back-translation (Sennrich et al. 2016, "Improving neural machine translation models
    with monolingual data").
    """
    return Filter(rng.uniform(*STRENGTHS))(waveforms, spectra, hop).clamp(-1, 1)


class Training:
    """A model on its way through the stages.

    Attributes
    ----------
    step : int
        Steps done, of `steps`.
    model, average : MusicTranslator
        The weights in training, and their exponential averages, with which one translates.
    """

    def __init__(self, model: MusicTranslator, corpus: Corpus, recipe: Recipe):
        self.model, self.recipe, self.step = model, recipe, 0
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.domains, self.draw = model.domains, Segments(corpus, model.domains)
        self.hop = model.config.encoder.pool // FINE
        count = len(self.domains)
        self.stages = {
            "first": (recipe.first * count, self._frames),
            "game": (recipe.game, self._game),
            "again": (recipe.again * count, self._frames),
            "shared": (recipe.shared, self._wavenet),
            "own": (recipe.own, self._wavenet),
        }
        self.steps = sum(length for length, _ in self.stages.values())
        self.optimizers = {
            "encoder": torch.optim.Adam(model.encoder.parameters(), foreach=True),
            "classifier": torch.optim.Adam(model.classifier.parameters(), foreach=True),
        }
        for name, decoder in model.decoders.items():
            frames, wavenet = split(decoder)
            self.optimizers[f"{name}.frames"] = torch.optim.AdamW(frames, betas=(0.9, 0.99), weight_decay=1e-2, foreach=True)
            self.optimizers[f"{name}.wavenet"] = torch.optim.Adam(wavenet, foreach=True)
        self.cache: tuple = ()  # what some steps in a row have in common; made again when resumed
        self.last: tuple = ()  # the last step of the game

    def rng(self, *words: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, *words])

    def frames_of(self, domain: str, average: bool = False) -> FrameModel:
        return (self.average if average else self.model).decoders[domain].guide.frames

    def where(self) -> tuple[str, int, int]:
        """Return the stage that the next step is of, its number there, and the stage's length."""
        before = 0
        for name, (length, _) in self.stages.items():
            if self.step < before + length:
                return name, self.step - before, length
            before += length
        raise IndexError("the training is over")

    def advance(self) -> dict[str, float]:
        """Do the next step, and return its losses."""
        stage, number, length = self.where()
        if self.step == 0:
            self._begin()
        if stage == "own" and number == 0:
            self._unshare()
        report = self.stages[stage][1](stage, number, length)
        self.step += 1
        return {"stage": stage} | report

    @torch.no_grad()
    def _begin(self) -> None:
        rng = self.rng(0)
        clean = torch.cat([self.draw(name, 32, SEGMENT, rng) for name in self.domains])
        energies = [self.model.encoder.front_end.energies(heard(some, rng)) for some in clean.split(8)]
        regression.fit(self.model.encoder, torch.cat(energies), mulaw.encode(clean))
        for name, own in zip(self.domains, clean.split(32), strict=True):
            spectra = log_spectrum(own, self.hop)[:, ::2].flatten(0, 1)
            self.frames_of(name).initialise(spectra)
        self.average.load_state_dict(self.model.state_dict())

    # Frame models, the encoder standing still ------------------------------------------------

    def _frames(self, stage: str, number: int, length: int) -> dict[str, float]:
        """Domains follow one another, so that the audio of one is in memory."""
        each = length // len(self.domains)
        place, number = divmod(number, each)
        name, again = self.domains[place], stage == "again"
        if self.cache[:2] != (stage, name):
            self.cache = (stage, name, *self.gather(name, again))
        spectra, latents = self.cache[2:]
        rng = self.rng(1, self.step)
        rows = torch.from_numpy(rng.integers(len(spectra), size=ROWS))
        version = torch.from_numpy(rng.integers(latents.shape[1], size=ROWS))
        error, missed = painting(self.frames_of(name), latents[rows, version].float(), spectra[rows].float(), rng)
        rate = FRAME_RATE * min(1.0, (number + 1) / WARMUP, 2 * (1 - number / each))
        self._descend(error.mean() + EVENT_WEIGHT * missed, {f"{name}.frames": rate})
        self._follow([f"{name}.frames"], AVERAGE, number)
        return {"domain": name, "spectra": error.mean().item(), "events": missed.item()}

    @torch.no_grad()
    def gather(self, name: str, again: bool) -> tuple[Tensor, Tensor]:
        """Return spectra, float16, (N, n, BINS), and latents of some versions, (N, V, L, F).

        They follow from the encoder and the other domains' frame models, which do not change while
        this domain's is trained.
        """
        rng = self.rng(2, int(again), self.domains.index(name))
        count = self.recipe.segments // (1 if again else 3)
        spectra, latents, encoder = [], [], self.average.encoder
        for first in range(0, count, 10):
            clean = self.draw(name, min(10, count - first), SEGMENT, rng)
            spectra.append(log_spectrum(clean, self.hop).half())
            versions = [encoder(heard(clean, rng)) for _ in range(2 if again else 3)]
            for _ in range(4 if again else 0):
                source = versions[int(rng.integers(2))]
                others = self._others(name, len(clean), rng)
                painted = torch.cat([self.frames_of(other, average=True)(source[i : i + 1]) for i, other in enumerate(others)])
                versions.append(encoder(heard(converted(clean, painted, self.hop, rng), rng)))
            latents.append(torch.stack(versions, dim=1).half())
        return torch.cat(spectra), torch.cat(latents)

    def _others(self, name: str, count: int, rng: np.random.Generator) -> list[str]:
        others = [other for other in self.domains if other != name] or [name]
        return [others[i] for i in rng.integers(len(others), size=count)]

    # The game ---------------------------------------------------------------------------------

    def _game(self, stage: str, number: int, length: int) -> dict[str, float]:
        """The paper's step on a batch of all domains, over spectra; see the module.

        The second half of the batch is the last step's audio, converted. The classifier sees the
        domains' own audio only: what it would learn from conversions is what betrays a conversion.
        """
        rng = self.rng(3, self.step)
        clean = self._game_audio(rng)
        domain = torch.arange(len(self.domains)).repeat_interleave(EACH)
        codes, spectra, own = heard(clean, rng), log_spectrum(clean, self.hop), len(clean)
        if number:
            before, was, painted = self._last_game()
            codes = torch.cat([codes, heard(converted(before, painted, self.hop, rng), rng)])
            spectra = torch.cat([spectra, was])
        with torch.no_grad():
            energies = self.model.encoder.front_end.energies(codes)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            latent = self.model.encoder.above(energies)
        latent = latent.float()
        rate = min(1.0, (number + 1) / WARMUP, 3 * (1 - number / length))
        known = losses.domain(self.model.classifier(latent[:own].detach()), domain)
        self._descend(known, {"classifier": CLASSIFIER_RATE * rate})
        errors, missed = [], []
        for name, rows in self._rows(len(latent)):
            error, miss = painting(self.frames_of(name), latent[rows], spectra[rows], rng)
            errors.append(error)
            missed.append(miss)
        error, miss = torch.cat(errors).mean(), torch.stack(missed).mean()
        confusion = losses.confusion(self.model.classifier(latent[:own]))
        parts = {"encoder": ENCODER_RATE * rate}
        parts |= {f"{name}.frames": FRAME_RATE * rate for name in self.domains}
        self._descend(error + EVENT_WEIGHT * miss + CONFUSION_WEIGHT * confusion, parts)
        self._follow([*parts, "classifier"], AVERAGE, number)
        self.last = clean, spectra[:own], latent[:own].detach()
        return {"spectra": error.item(), "events": miss.item(), "classifier": known.item()}

    def _game_audio(self, rng: np.random.Generator) -> Tensor:
        return torch.cat([self.draw(name, EACH, SHORT, rng) for name in self.domains])

    def _rows(self, count: int):
        """Yield each domain with its rows in a batch of own audio and, perhaps, conversions."""
        half = EACH * len(self.domains)
        for place, name in enumerate(self.domains):
            first = torch.arange(place * EACH, (place + 1) * EACH)
            yield name, torch.cat([first + start for start in range(0, count, half)])

    @torch.no_grad()
    def _last_game(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the last step's audio, its spectra, and those that other domains paint of it."""
        clean, spectra, latent = self.last
        rng, painted = self.rng(4, self.step), torch.empty_like(spectra)
        names = [name for name in self.domains for _ in range(EACH)]
        others = [self._others(name, 1, rng)[0] for name in names]
        for other in dict.fromkeys(others):
            rows = [i for i, name in enumerate(others) if name == other]
            painted[rows] = self.frames_of(other)(latent[rows])
        return clean, spectra, painted

    # WaveNets, all else standing still ----------------------------------------------------------

    def _wavenet(self, stage: str, number: int, length: int) -> dict[str, float]:
        """Domains take turns, a segment each; of a segment some windows are taken."""
        visit, window = divmod(number, TAKEN)
        name = self.domains[visit % len(self.domains)]
        own = self.domains[0] if stage == "shared" else name
        rng = self.rng(5, self.step)
        if self.cache[:2] != (stage, visit):
            self.cache = (stage, visit, *self.visit(name, self.rng(6, int(stage == "own"), visit)))
        told, target, order = self.cache[2:]
        frames = WINDOW // self.hop
        first = int(order[window]) * frames
        span = slice(first, first + frames)
        now = Told(told.condition[:, :, span], told.predictors[:, span])
        goal = target[:, first * self.hop : (first + frames) * self.hop]
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            logits = self.model.decoders[own].predict(corrupted(goal, rng), now)
        loss = losses.reconstruction(logits, goal)
        done = number + (self.recipe.shared if stage == "own" else 0)
        left = (length - number) + (self.recipe.own if stage == "shared" else 0)
        rate = WAVENET_RATE * min(1.0, (done + 1) / 200, left / self.recipe.own)
        self._descend(loss, {f"{own}.wavenet": rate})
        self._follow([f"{own}.wavenet"], WAVENET_AVERAGE, done)
        return {"domain": name, "reconstruction": loss.item()}

    @torch.no_grad()
    def visit(self, name: str, rng: np.random.Generator) -> tuple[Told, Tensor, np.ndarray]:
        """Return what a domain's decoder is told of a segment, the segment, and its windows' order."""
        clean, encoder = self.draw(name, 1, SEGMENT, rng), self.average.encoder
        codes = heard(clean, rng)
        if rng.random() < CONVERTED:
            other = self._others(name, 1, rng)[0]
            painted = self.frames_of(other, average=True)(encoder(codes))
            codes = heard(converted(clean, painted, self.hop, rng), rng)
        guide = self.average.decoders[name].guide.train()
        return guide.tell(encoder(codes)), mulaw.encode(clean), rng.permutation(SEGMENT // WINDOW)

    def _unshare(self) -> None:
        """Let every domain go on from the shared WaveNet and its optimizer's state."""
        first, *others = self.domains
        for model in (self.model, self.average):
            shared = [p.data for p in split(model.decoders[first])[1]]
            for name in others:
                for mine, theirs in zip(split(model.decoders[name])[1], shared, strict=True):
                    mine.data.copy_(theirs)
        state = self.optimizers[f"{first}.wavenet"].state_dict()
        for name in others:
            self.optimizers[f"{name}.wavenet"].load_state_dict(copy.deepcopy(state))

    # What a checkpoint holds besides the averages -------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return, by name, all tensors that decide how the training goes on."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for part, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                found |= {f"adam.{part}/{index}/{name}": value for name, value in values.items()}
        return found | ({"last": self.last[2]} if self.last else {})

    def restore(self, saved: Mapping[str, Tensor], step: int) -> None:
        """Go on from there; the average is restored by the caller."""
        self.step = step
        weights = {key[6:]: value for key, value in saved.items() if key.startswith("model.")}
        self.model.load_state_dict(weights)
        for part, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"adam.{part}/"
            for key in (key for key in saved if key.startswith(prefix)):
                index, name = key[len(prefix) :].split("/")
                state.setdefault(int(index), {})[name] = saved[key]
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        if "last" in saved and self.where()[0] == "game":
            clean = self._game_audio(self.rng(3, step - 1))
            self.last = clean, log_spectrum(clean, self.hop), saved["last"]

    # Steps ------------------------------------------------------------------------------------------

    def _descend(self, loss: Tensor, rates: Mapping[str, float]) -> None:
        """Step down the gradient of some parts, each clipped alone."""
        groups = {name: self.optimizers[name].param_groups[0] for name in rates}
        parameters = [p for group in groups.values() for p in group["params"]]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for name, group in groups.items():
            nn.utils.clip_grad_norm_(group["params"], 1.0)
            group["lr"] = rates[name]
            self.optimizers[name].step()
            self.optimizers[name].zero_grad()

    @torch.no_grad()
    def _follow(self, parts: list[str], decay: float, number: int) -> None:
        """Let the averages follow; at first closely, so that they forget the random start."""
        decay = min(decay, (1 + number) / (10 + number))
        for part in parts:
            new, old = (parameters(model, part) for model in (self.model, self.average))
            torch._foreach_lerp_(old, new, 1 - decay)


def corrupted(codes: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the past that a WaveNet is shown: noisy, as its own output will be, or silent."""
    noise = rng.choice(NOISE) * rng.standard_normal(codes.shape)
    given = (codes + torch.from_numpy(noise).round().long()).clamp(0, mulaw.CODES - 1)
    if rng.random() < SILENT:
        given[:, : rng.integers(codes.shape[1])] = mulaw.SILENCE
    return given


def split(decoder: Decoder) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of a decoder's frame model, and its others."""
    frames = list(decoder.guide.parameters())
    known = set(map(id, frames))
    return frames, [p for p in decoder.parameters() if id(p) not in known]


def parameters(model: MusicTranslator, part: str) -> list[nn.Parameter]:
    """Return the parameters of ``encoder``, ``classifier``, ``NAME.frames`` or ``NAME.wavenet``."""
    if part in ("encoder", "classifier"):
        return list(getattr(model, part).parameters())
    name, kind = part.rsplit(".", 1)
    return split(model.decoders[name])[kind == "wavenet"]


def native_bf16() -> bool:
    """Tell whether the processor computes in bfloat16; without it that would be far slower."""
    return torch.cpu._is_avx512_bf16_supported()
