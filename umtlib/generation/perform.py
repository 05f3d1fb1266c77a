"""From what was heard to what is to be heard: told by the guide, played, finished by the guide.

This is the one place where these steps are put together, for a whole recording, a live one or many
excerpts at once, exactly or in stretches (`umtlib.generation.chunks`). What a guide tells or
finishes later than its time is waited for, and at the end nothing is missing. Notebook:
``06_generation``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from umtlib.generation import State, generate_many
from umtlib.generation.hearing import Heard
from umtlib.guide import Told
from umtlib.translator import MusicTranslator


def perform(
    model: MusicTranslator,
    names: Sequence[str],
    pieces: Iterable[Heard],
    *,
    states: Sequence[State] | None = None,
    progress: Callable[[int], None] | None = None,
    **options,
) -> Iterator[tuple[str, Tensor]]:
    """Perform in several domains together, exactly; yield each piece with its domain's name.

    A piece is float32 in [-1, 1], shape (B, T) with T > 0, on the CPU; all of a domain's are as
    long as what was heard. Memory does not grow.

    Parameters
    ----------
    pieces : iterable of Heard
        A recording, whose pieces but the last are of whole frames; rows are recordings side by
        side. How it is cut changes nothing but the rounding of sums.
    states : sequence of State, optional
        Where each domain's random numbers come from, if not from the options' generator.
    progress : callable, optional
        Called with the samples played so far in each domain.
    **options
        Of `umtlib.generation.generate_many`: generator, temperature, backend, dtype, threads.
    """
    parts, done = [Part(model, name) for name in names], 0
    states = [State() for _ in names] if states is None else states
    for heard, last in to_the_end(pieces):
        told = [part.tell(heard, last) for part in parts]
        codes = generate_many(
            [part.decoder for part in parts], told, states=states,
            progress=progress and (lambda now, before=done: progress(before + now)), **options,
        )  # fmt: skip
        for part, row, known in zip(parts, codes, told, strict=True):
            yield from part.finish(model.to_waveform(row), known, last)
        done += codes[0].shape[1]


class Part:
    """One domain's part of a performance."""

    def __init__(self, model: MusicTranslator, name: str):
        self.name, self.decoder = name, model.decoders[name]
        self.guide = self.decoder.guide
        self.memory = self.guide.memory()
        self.due = 0  # samples heard that are not performed yet

    def tell(self, heard: Heard, last: bool) -> Told:
        """Tell of the next piece; the last one is of no samples."""
        self.due += heard.samples
        return self.guide.tell(heard.latent, heard.levels, self.memory, last)

    def finish(self, waveform: Tensor, told: Told, last: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield what is to be heard of the next samples made, if there is anything."""
        made = self.guide.finish(waveform, told, self.memory, last)[:, : self.due]
        self.due -= made.shape[1]
        if made.shape[1]:
            yield self.name, made.clamp(-1, 1)


def to_the_end(pieces: Iterable[Heard]) -> Iterator[tuple[Heard, bool]]:
    """Yield each piece, and at last an empty one: only then is it known that nothing follows."""
    heard = None
    for heard in pieces:
        yield heard, False
    if heard is not None:
        levels = None if heard.levels is None else heard.levels[:, :0]
        yield Heard(heard.latent[:, :, :0], 0, levels), True
