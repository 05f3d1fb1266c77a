"""The recipe of ``small``: how two processor cores train a translator in a few hours.

1. *begin*: the encoder is fitted by least squares (`umtlib.small.regression`).
2. *first*: the encoder stands still, and each domain's frame model learns to paint its domain
   (`umtlib.small.painting`).
3. *game*: encoder, classifier and frame models together: the paper's step, with spectra in place of
   waveforms (`umtlib.small.game`). That is so much cheaper that every batch can be of all domains.
4. *again*: frame models, with the encoder as it has become, on more audio and on conversions. Then
   it is settled by how much their attacks are emphasised (`umtlib.small.painting.settle`).
5. *shared*: one WaveNet learns from all domains; from here on encoder and frame models stand still
   (`umtlib.small.wavenets`).
6. *own*: each domain's WaveNet goes on from it, on its own.

Not in the paper. `umtlib.small.training` goes through the stages.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from umtlib.config import (
    Count,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    Preset,
    Range,
    Seed,
    Text,
    check,
)

LEAST = 30  # segments of each domain that a shortened training still hears


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
        Steps of the game, of the shared WaveNet, and of all WaveNets on their own together. If
        none are shared, each WaveNet goes on from the weights of the model that it begins with.
    segments : int
        Segments of 3.2 s of each domain that frame models learn from; a third the first time.
    only : str
        A new domain of a trained model: only *again* and *own* are gone through, only for it.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    name: ClassVar[str] = "small"  # in `umtlib.runs.TRAININGS`

    seed: Seed = 0
    first: Count = 250
    game: Count = 2_200
    again: Count = 600
    shared: Count = 3_000
    own: Annotated[int, Range(1, 10**9)] = 9_500
    segments: Annotated[int, Range(3, 10**6)] = 400
    only: Text = ""

    def __post_init__(self):
        check(self)

    def lengths(self, domains: int) -> dict[str, int]:
        """Return the steps of each stage, in order, for a model of so many domains."""
        if self.only:
            return {"again": self.again, "own": max(1, self.own // domains)}
        return {
            "first": self.first * domains,
            "game": self.game,
            "again": self.again * domains,
            "shared": self.shared,
            "own": self.own,
        }

    def lasting(self, steps: int, domains: int) -> "Recipe":
        """Return a recipe of so many steps in all: every stage is longer or shorter in proportion.

        A shorter one hears less audio too.
        """
        part = steps / sum(self.lengths(domains).values())
        names = ("first", "game", "again", "shared")
        scaled = {name: int(part * getattr(self, name)) for name in names}
        least = min(LEAST, self.segments)
        scaled["segments"] = max(least, int(min(1.0, part) * self.segments))
        changed = replace(self, **scaled)
        *others, _ = changed.lengths(domains).values()
        own = steps - sum(others)
        return replace(changed, own=own * domains if self.only else own)


SMALL = Preset(
    ModelConfig(
        encoder=EncoderConfig(front_end="filterbank", blocks=1, layers=5),
        decoder=DecoderConfig(
            input="codes", input_kernel=2, guide="frames", blocks=2, channels=64, skip_channels=64
        ),
    ),
    Recipe(),
)
