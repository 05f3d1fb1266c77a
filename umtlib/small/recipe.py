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

from umtlib import config
from umtlib.config import Count, Range

LEAST = 30  # segments of each domain that a shortened training still hears


@dataclass(frozen=True)
class Recipe(config.Checked):
    """How long each stage takes, in steps, and how much audio it hears."""

    name: ClassVar[str] = "small"  # in `umtlib.runs.TRAININGS`

    seed: config.Seed = 0  # all that is random follows from it
    first: Count = 250  # of each domain's frame model before the game
    game: Count = 2_200
    again: Count = 600  # of each domain's frame model after the game
    shared: Count = 3_000  # 0: each WaveNet goes on from the weights that it begins with
    own: config.Some = 9_500  # of all WaveNets together
    segments: Annotated[int, Range(3, 10**6)] = 400  # of each domain, 3.2 s long; *first*: a third
    only: config.Text = ""  # a new domain of a trained model: only *again* and *own*, only for it

    def lengths(self, domains: int) -> dict[str, int]:
        """Return the steps of each stage, in order, for a model of so many domains."""
        if self.only:
            return {"again": self.again, "own": max(1, self.own // domains)}
        known = {"first": self.first * domains, "game": self.game, "again": self.again * domains}
        return known | {"shared": self.shared, "own": self.own}

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


SMALL = config.Preset(
    config.ModelConfig(
        encoder=config.EncoderConfig(front_end="filterbank", blocks=1, layers=5),
        decoder=config.DecoderConfig(
            input="codes", input_kernel=2, guide="frames", blocks=2, channels=64, skip_channels=64
        ),
    ),
    Recipe(),
)
