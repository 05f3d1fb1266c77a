"""Translate with the mouse: a recording, a file or an example, to the domains of a model.

Notebooks: ``01_quickstart``, ``07_translation``.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from umtlib import audio
from umtlib.errors import ConfigError, UmtError
from umtlib.evaluation import blending
from umtlib.generation import resolve, translation
from umtlib.generation.hearing import Heard
from umtlib.generation.perform import perform
from umtlib.notebook.widgets import Recorder
from umtlib.translator import MusicTranslator

PIECE = 1.0  # seconds of work between two looks at whether one is to stop
OFTEN = 0.25  # seconds between two reports
COLDEST, HOTTEST = 0.1, 1.5  # temperatures


class Translator(Recorder):
    """Translate a recording, a file or an example, and hear what comes as it comes.

    Parameters
    ----------
    model : MusicTranslator
        The network.
    examples : mapping
        Sounds by name, each of shape (T,), 16 kHz.
    seconds : float
        Of each sound, so much at most is translated.
    **settings
        At first: ``chosen`` (list of domains), ``temperature``, ``seed``, ``source`` and ``blend``
        (names of examples).

    Attributes
    ----------
    results : dict
        By domain, what the last translation made, up to where it was stopped; float32, 16 kHz.
    """

    def __init__(
        self,
        model: MusicTranslator,
        examples: Mapping[str, np.ndarray],
        seconds: float = 20.0,
        **settings: Any,
    ):
        self.model, self.inputs, self.results = model, dict(examples), {}
        self.speed: float | None = None
        self._stop = threading.Event()
        super().__init__(
            seconds, domains=list(model.domains), chosen=list(model.domains), temperature=1.0,
            seed=0, blend="", sources=list(self.inputs), source=next(iter(self.inputs), ""),
            busy=False, done=0.0, left=None, expected=None,
        )  # fmt: skip
        self.do_set(settings)
        if self.state["source"]:
            self.show({self.state["source"]: self._input("source")})
        threading.Thread(target=self._measure, daemon=True).start()

    def do_set(self, values: Mapping[str, Any], buffers: Any = ()) -> None:
        """Change the settings.

        Raises
        ------
        ConfigError
            If one is not what it can be.
        """
        state, known = self.state, [*self.inputs, ""]
        good = {
            "chosen": lambda v: set(v) <= set(self.model.domains),
            "temperature": lambda v: COLDEST <= float(v) <= HOTTEST,
            "seed": lambda v: int(v) == v and 0 <= v < 2**31,
            "source": lambda v: v in known[:-1] or not self.inputs,
            "blend": lambda v: v in known,
        }
        for name, value in values.items():
            if name not in good or not good[name](value):
                raise ConfigError(f"{name} cannot be {value!r}")
        self.tell(**values)
        if values.get("source", state["source"]) != state["source"]:
            self.results = {}
            self.show({values["source"]: self._input("source")})
        self._expect()

    def received(self, name: str) -> None:
        """Choose what was recorded or uploaded as the input."""
        self.inputs[name] = self.sound
        self.tell(sources=list(self.inputs), source=name)
        self.results = {}
        self.show({name: self.sound})
        self._expect()

    def do_start(self, buffers: Any = ()) -> None:
        """Translate, while the notebook goes on."""
        if not self.state["busy"]:
            self.tell(busy=True)
            threading.Thread(target=self._work, daemon=True).start()

    def do_stop(self, buffers: Any = ()) -> None:
        """Stop soon, and keep what was made."""
        self._stop.set()

    def run(self) -> dict[str, np.ndarray]:
        """Translate with the settings as they are, and return `results`.

        Raises
        ------
        ConfigError
            If there is nothing to translate, or no domain to translate to.
        """
        self._stop.clear()
        self.tell(busy=True, done=0.0, left=self.state["expected"], said="listening")
        try:
            names = [name for name in self.model.domains if name in self.state["chosen"]]
            if not names:
                raise ConfigError("choose a domain to translate to")
            if not self.state["source"]:
                raise ConfigError("record something or upload a file first")
            self._translate(names)
        finally:
            self.tell(busy=False, left=None)
        return self.results

    def _work(self) -> None:
        try:
            self.run()
        except Exception as error:  # in a thread nobody else would hear of it
            kind = "" if isinstance(error, UmtError) else f"{type(error).__name__}: "
            self.tell(error=f"{kind}{error}")

    def _translate(self, names: list[str]) -> None:
        backend, dtype = resolve()
        heard, pool = self._heard(dtype), self.model.config.encoder.pool
        began = told = shown = time.monotonic()

        def progress(done: int) -> None:
            nonlocal told
            now = time.monotonic()
            if done and now - told > OFTEN:
                told, share = now, min(1.0, done / heard.samples)
                left = (now - began) * (1 - share) / share
                self.tell(done=share, left=left, said="translating")

        speed = self.speed or self._measure()
        piece = max(pool, round(PIECE * speed / len(names) * audio.SAMPLE_RATE))
        made: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for name, waveform in perform(
            self.model, names, heard.split(pool, piece),
            states=[translation.seeded(self.state["seed"]) for _ in names],
            temperature=self.state["temperature"], backend=backend, dtype=dtype, progress=progress,
        ):  # fmt: skip
            made[name].append(waveform[0].numpy())
            if name == names[-1] and self._stop.is_set():
                break
            if name == names[-1] and time.monotonic() - shown > 4:
                self._deliver(made)
                shown = time.monotonic()
        self._deliver(made)
        seconds = max(map(len, self.results.values()), default=0) / audio.SAMPLE_RATE
        stopped = "stopped; kept: " * self._stop.is_set()
        took = time.monotonic() - began
        many = f"{len(names)} domain{'s' * (len(names) > 1)}"
        self.tell(done=1.0, said=f"{stopped}{seconds:.1f} s in {many}, {took:.0f} s")

    def _deliver(self, made: Mapping[str, list[np.ndarray]]) -> None:
        self.results = {
            name: audio.level(np.concatenate(parts), translation.MOST_GAIN)
            for name, parts in made.items()
            if parts
        }
        source = {f"input: {self.state['source']}": self._input("source")}
        self.show(source | self.results)

    def _heard(self, dtype: torch.dtype) -> Heard:
        first = audio.level(self._input("source"))
        if not self.state["blend"]:
            return translation.hear(self.model, [first], len(first), dtype)
        second = audio.level(self._input("blend"))
        latents = [translation.encode(self.model, sound) for sound in (first, second)]
        pool = self.model.config.encoder.pool
        wanted = round(blending.BLEND * audio.SAMPLE_RATE / pool)
        frames = min(wanted, *(latent.shape[2] for latent in latents))
        mixed = blending.blend(*latents, frames)
        return Heard(mixed, mixed.shape[2] * pool)

    def _input(self, which: str) -> np.ndarray:
        limit = round(self.state["limit"] * audio.SAMPLE_RATE)
        return audio.to_mono_16k(self.inputs[self.state[which]], audio.SAMPLE_RATE)[:limit]

    def _measure(self) -> float:
        self.speed = translation.speed(self.model, self.model.domains)
        self._expect()
        return self.speed

    def _expect(self) -> None:
        state = self.state
        if self.speed and state["source"]:
            given = [name for name in ("source", "blend") if state[name]]
            samples = sum(len(self._input(name)) for name in given) * len(state["chosen"])
            self.tell(expected=samples / audio.SAMPLE_RATE / self.speed)

    def words(self) -> str:
        """Return source and settings, in words."""
        state = self.state
        return (
            f"{state['source'] or 'nothing'} to {', '.join(state['chosen']) or 'no domain'}, "
            f"temperature {state['temperature']:g}, seed {state['seed']}. {state['said']}"
        )
