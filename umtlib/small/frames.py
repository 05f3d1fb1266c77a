"""The frame model of a domain: from the latent, when notes begin, and then how each moment sounds.

A least-squares map from a latent to a spectrum smears every attack whose moment is uncertain, and
a frame alone cannot know that a piano's tone has been fading for a second. So a frame model is two
causal recurrent networks. The *listener* decides first where notes begin, and its decisions are
hard: an event is there or it is not. The *player* is told the events and paints a log power
spectrum every 12.5 ms. It sees two latent frames ahead (100 ms). Not in the paper; preset
``small``.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umtlib.small.spectra import APART, BANDS, BINS, FINE

LIKELY = 0.5  # an event: a peak of the listener's probability above this
FOLLOWING = FINE - 1  # fine frames of the next latent frame whose events are decided in time


@dataclass
class Memory:
    """What a frame model remembers between two calls."""

    heard: Tensor | None = None  # the listener's state
    state: Tensor | None = None  # the player's
    latent: Tensor | None = None  # frames whose right neighbour is not there yet, and one before
    mixed: Tensor | None = None  # frames that are not painted yet
    events: Tensor | None = None  # theirs, as far as decided
    chance: np.ndarray | None = None  # probabilities of events that are not decided
    quiet: np.ndarray | int = APART  # fine frames since the last event of a band


def pick(chance: Tensor, memory: Memory, last: bool) -> Tensor:
    """Choose events, bool, (B, N, BANDS): peaks of a probability, `APART` from one another.

    They come one fine frame later than the probabilities: the newest stays undecided, if it is not
    the last.
    """
    new = chance.detach().cpu().numpy()
    known = new if memory.chance is None else np.concatenate([memory.chance, new], axis=1)
    after = np.concatenate([known[:, 1:], np.zeros_like(known[:, :1])], axis=1)
    count = max(0, known.shape[1] - (not last))
    peak = (known > LIKELY) & (known >= after)
    found = np.zeros((len(new), count, new.shape[2]), bool)
    for n in range(count):
        found[:, n] = peak[:, n] & (memory.quiet >= APART)
        memory.quiet = np.where(found[:, n], 1, memory.quiet + 1)
    memory.chance = known[:, count:]
    return torch.from_numpy(found).to(chance.device)


class FrameModel(nn.Module):
    """Latent, of so many channels, to events and log power spectra, for one domain."""

    MIXED, LISTENER, PLAYER, HIDDEN, COEFFICIENTS = 128, 128, 224, 224, 64
    DECIDE = 96
    RARE = -3.5  # logit of an event before anything is known

    def __init__(self, latent: int):
        super().__init__()
        told = self.MIXED + (FINE + FOLLOWING) * BANDS
        self.mix = nn.Linear(3 * latent, self.MIXED)  # the frame, and one on either side
        self.listener = nn.GRU(self.MIXED, self.LISTENER, batch_first=True)
        self.decide = nn.Linear(self.MIXED + self.LISTENER, self.DECIDE)
        self.logits = nn.Linear(self.DECIDE, FINE * BANDS)
        nn.init.constant_(self.logits.bias, self.RARE)
        self.player = nn.GRU(told, self.PLAYER, batch_first=True)
        self.hidden = nn.Linear(told + self.PLAYER, self.HIDDEN)
        self.coefficients = nn.Linear(self.HIDDEN, FINE * self.COEFFICIENTS)
        self.out = nn.Linear(self.COEFFICIENTS, BINS)

    @torch.no_grad()
    def initialise(self, spectra: Tensor) -> None:
        """Begin with a domain's mean spectrum and principal components, from (N, BINS) of its own.

        Then the network has to find coefficients of order one, in the order of their weight.
        """
        mean = spectra.mean(dim=0)
        _, sizes, components = torch.linalg.svd(spectra - mean, full_matrices=False)
        self.out.bias.copy_(mean)
        scale = sizes[: self.COEFFICIENTS, None] / len(spectra) ** 0.5
        self.out.weight.copy_((components[: self.COEFFICIENTS] * scale).T)
        self.coefficients.weight.mul_(0.5)

    def listen(self, latent: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Hear all frames of a latent, (B, L, F + 2), but the first and the last.

        Returns what the player is told of them, (B, F, MIXED); the events' logits,
        (B, F * FINE, BANDS); the state.
        """
        z = latent.transpose(1, 2)
        mixed = F.elu(self.mix(torch.cat([z[:, :-2], z[:, 1:-1], z[:, 2:]], dim=-1)))
        heard, state = self.listener(mixed, state)
        logits = self.logits(F.elu(self.decide(torch.cat([mixed, heard], dim=-1))))
        return mixed, logits.unflatten(2, (FINE, BANDS)).flatten(1, 2), state

    def play(
        self, mixed: Tensor, events: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Paint frames, (B, F, MIXED), whose events, (B, F * FINE + FOLLOWING, BANDS), are known.

        Returns log power spectra, (B, F * FINE, BINS), and the state.
        """
        own = events.to(mixed.dtype).unfold(1, FINE + FOLLOWING, FINE)  # (B, F, BANDS, 7)
        told = torch.cat([mixed, own.transpose(2, 3).flatten(2)], dim=-1)
        played, state = self.player(told, state)
        hidden = F.elu(self.hidden(torch.cat([told, played], dim=-1)))
        coefficients = self.coefficients(hidden).unflatten(2, (FINE, self.COEFFICIENTS))
        return self.out(coefficients.flatten(1, 2)), state

    def forward(self, latent: Tensor) -> Tensor:
        """Return the log power spectra, (B, F * FINE, BINS), of a latent, (B, latent, F)."""
        return self.paint(latent, Memory(), last=True)

    def paint(self, latent: Tensor, memory: Memory, last: bool) -> Tensor:
        """Return the spectra that more of a latent decides, (B, n * FINE, BINS), 2 frames late.

        The next frames are (B, latent, F). If they are the last, all are painted.
        """
        before = latent[:, :, :1] if memory.latent is None else memory.latent
        z = torch.cat([before, latent], dim=2)
        if last:
            z = torch.cat([z, z[:, :, -1:]], dim=2)
        memory.latent = z[:, :, -2:] if z.shape[2] else None
        if z.shape[2] < 3:
            return z.new_zeros(len(z), 0, BINS)
        mixed, logits, memory.heard = self.listen(z, memory.heard)
        events = pick(logits.sigmoid(), memory, last)
        if memory.mixed is not None:
            mixed = torch.cat([memory.mixed, mixed], dim=1)
            events = torch.cat([memory.events, events], dim=1)
        if last:
            events = F.pad(events, (0, 0, 0, FOLLOWING))
        count = max(0, (events.shape[1] - FOLLOWING) // FINE)
        memory.mixed, memory.events = mixed[:, count:], events[:, count * FINE :]
        if not count:
            return z.new_zeros(len(z), 0, BINS)
        now = events[:, : count * FINE + FOLLOWING]
        spectra, memory.state = self.play(mixed[:, :count], now, memory.state)
        return spectra
