"""A training of ``small``: through the stages of a `umtlib.small.recipe.Recipe`.

Every step is a function of the seed, its number and the weights, so a run that is interrupted ends
in the same weights.
"""

import torch

from umtlib import mulaw
from umtlib.corpora.corpus import Corpus
from umtlib.errors import TrainingError
from umtlib.machine.team import Team
from umtlib.small import game, painting, regression, wavenets
from umtlib.small.hearing import heard
from umtlib.small.recipe import Recipe
from umtlib.small.spectra import log_spectrum
from umtlib.small.state import State
from umtlib.translator import MusicTranslator

BEGIN, TOGETHER = 32, 192  # segments that the encoder is fitted to: of a domain, and of all
STAGES = {"first": painting.step, "game": game.step, "again": painting.step}
STAGES |= {"shared": wavenets.step, "own": wavenets.step}


class Training(State):
    """A model on its way through the stages; as `umtlib.training.Training`.

    With ``steps`` every stage is made longer or shorter. There are no workers: the audio is
    prepared between the steps. Raises TrainingError if the model or the machine is not what the
    recipe is for, or the corpus lacks a domain.
    """

    def __init__(
        self,
        model: MusicTranslator,
        corpus: Corpus,
        config: Recipe,
        steps: int | None = None,
        team: Team = Team(),
        workers: int = 0,
    ):
        check(model, team, steps)
        count = len(model.domains)
        config = config if steps is None else config.lasting(steps, count)
        super().__init__(model, corpus, config)
        self.team, self.lengths = team, config.lengths(count)
        self.steps = sum(self.lengths.values())

    @torch.no_grad()
    def begin(self) -> None:
        """Fit the encoder, and give each frame model its domain's mean spectrum to begin with."""
        rng, each = self.rng(0), min(BEGIN, max(2, TOGETHER // len(self.domains)))
        clean = torch.cat([self.draw(name, each, self.segment, rng) for name in self.domains])
        front_end = self.model.encoder.front_end
        energies = [front_end.energies(heard(some, rng)) for some in clean.split(8)]
        regression.fit(self.model.encoder, torch.cat(energies), mulaw.encode(clean))
        for name, own in zip(self.domains, clean.split(each), strict=True):
            spectra = log_spectrum(own, self.hop)[:, ::2].flatten(0, 1)
            self.frames(name).initialise(spectra)
        self.average.load_state_dict(self.model.state_dict())

    def where(self) -> tuple[str, int, int]:
        """Return the next step's stage, number there, and its length, or raise TrainingError."""
        number = self.step
        for stage, length in self.lengths.items():
            if number < length:
                return stage, number, length
            number -= length
        raise TrainingError(f"the training is over after {self.steps} steps")

    def advance(self) -> dict[str, float | str]:
        """Do the next step and return its report."""
        stage, number, length = self.where()
        report = STAGES[stage](self, stage, number, length)
        self.step += 1
        if stage != "game":
            self.carried = {}
        return {"stage": stage} | report

    def close(self) -> None:
        """There is nothing to be ended."""


def check(model: MusicTranslator, team: Team, _steps: int | None) -> None:
    """Raise TrainingError if a model cannot be trained so by these processes."""
    encoder, guide = model.config.encoder, model.config.decoder.guide
    for wrong, words in (
        (team.size > 1 or team.device.type != "cpu",
         f"is for one process on the CPU, not {team.size} on {team.device.type}"),
        (encoder.front_end != "filterbank",
         f"needs an encoder with front_end 'filterbank', not {encoder.front_end!r}"),
        (encoder.channels < encoder.filters,
         f"needs {encoder.filters} channels, one for each filter, not {encoder.channels}"),
        (guide != "frames", f"needs decoders with guide 'frames', not {guide!r}"),
    ):  # fmt: skip
        if wrong:
            raise TrainingError(f"the recipe of small {words}")
