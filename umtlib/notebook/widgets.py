"""What notebooks show and students use: a player, a recorder, and what all widgets have in common.

The page's side of every widget is ``front.js``: plain JavaScript, sent by the kernel, so that
nothing is built and nothing is fetched. Where no page listens (nbval, nbconvert, GitHub), a widget
is the HTML of what it last knew, with its sounds. Notebook: ``01_quickstart``.
"""

import html
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from traitlets import Dict, List, Unicode

import umtlib
from umtlib import audio
from umtlib.errors import AudioError, UmtError
from umtlib.files.names import readable
from umtlib.notebook import players

RATES = (3_000, 400_000)  # Hz that a microphone may have
MOST_BYTES = 200 << 20  # of a file that is uploaded


class Front(anywidget.AnyWidget):
    """The kernel's side of a widget.

    The page is told of `state` and `sounds` and shows them; only the kernel changes them. What is
    done on the page comes back as a message ``{"do": NAME, ...}``, which the method ``do_NAME``
    receives. An `UmtError` that it raises is shown in the widget.

    Parameters
    ----------
    **state
        What the page is told at first.
    """

    _esm = Path(__file__).with_name("front.js")
    _css = Path(__file__).with_name("front.css")
    _ipython_display_ = None  # of ipywidgets 7, which knows no HTML beside the widget
    kind = Unicode().tag(sync=True)
    state = Dict().tag(sync=True)
    sounds = List().tag(sync=True)
    exact = False  # send sounds as they are, not compressed
    pictures = True  # send spectrograms

    def __init__(self, **state: Any):
        self.waveforms: dict[str, np.ndarray] = {}
        self._turn = threading.RLock()
        super().__init__(kind=type(self).__name__, state=state)
        self.on_msg(self._receive)

    def tell(self, **news: Any) -> None:
        """Change some of the state."""
        with self._turn:
            self.state = self.state | news

    def show(self, sounds: Mapping[str, np.ndarray]) -> None:
        """Give the widget's player these sounds by title, each of shape (T,), 16 kHz."""
        with self._turn:
            self.waveforms = {readable(title): sound for title, sound in sounds.items()}
            self.sounds = players.described(self.waveforms, self.exact, self.pictures)

    def words(self) -> str:
        """Return the state in words, for where there is no page."""
        return ""

    def _receive(self, _widget: Any, content: dict, buffers: Sequence[memoryview]) -> None:
        told = dict(content)
        try:
            self.tell(error="")
            getattr(self, f"do_{told.pop('do')}")(buffers=buffers, **told)
        except UmtError as error:
            self.tell(error=str(error))

    def do_wav(self, number: int, why: str, buffers: Any = ()) -> None:
        """Send one of the sounds exactly as it is: to be kept, or for a browser without Opus."""
        title, waveform = list(self.waveforms.items())[number]
        told = {"wav": number, "title": title, "why": why}
        self.send(told, buffers=[players.encode(waveform, exact=True)[0]])

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        if found:
            said = " ".join(filter(None, (self.words(), self.state.get("error"))))
            files = [(sound["title"], sound["file"], sound["kind"]) for sound in self.sounds]
            found[0]["text/html"] = f"<p>{html.escape(said)}</p>{players.table(files)}"
            found[0]["text/plain"] = f"{self.kind}: {said or ', '.join(self.waveforms)}"
        return found


class Player(Front):
    """Several sounds on one clock: see them, jump, loop, and switch between them as they play.

    Space plays and stops, the arrows jump, a digit chooses a sound at the same moment, ``l`` loops,
    ``[`` and ``]`` say from where to where. A click jumps, and a drag chooses what is looped.

    Parameters
    ----------
    sounds : mapping
        Sounds by title, each of shape (T,), in [-1, 1], 16 kHz. They are played equally loud, as
        `umtlib.audio.level` understands it, unless that is switched off.
    onsets : sequence of float
        Seconds at which notes begin, to be drawn.
    """

    def __init__(self, sounds: Mapping[str, np.ndarray], onsets: Sequence[float] = ()):
        super().__init__(onsets=[float(onset) for onset in onsets])
        self.show(sounds)


class Recorder(Front):
    """Record oneself, or upload a file; the result is `sound`.

    Parameters
    ----------
    seconds : float
        The longest recording; of a file, the beginning.

    Attributes
    ----------
    sound : np.ndarray or None
        The last recording or file, float32, shape (T,), 16 kHz, as loud as it was.
    """

    def __init__(self, seconds: float = 20.0, **state: Any):
        super().__init__(limit=float(seconds), said="", **state)
        self.sound: np.ndarray | None = None
        self._pieces: list[np.ndarray] = []

    def do_begin(self, buffers: Any = ()) -> None:
        """A recording, or the transfer of a file, begins."""
        self._pieces = []

    def do_piece(self, buffers: Sequence[memoryview]) -> None:
        """A piece of it has come: 16-bit samples, or bytes of the file.

        Raises
        ------
        AudioError
            If it is too large.
        """
        if sum(map(len, self._pieces)) + len(buffers[0]) > MOST_BYTES:
            raise AudioError(
                f"more than {MOST_BYTES >> 20} MiB; cut the file, or convert it to MP3"
            )
        self._pieces.append(np.frombuffer(buffers[0], np.uint8))

    def do_recorded(self, rate: float, buffers: Any = ()) -> None:
        """The recording has ended.

        Raises
        ------
        AudioError
            If nothing was recorded.
        """
        content = self._taken()
        samples = content[: len(content) // 2 * 2].view("<i2")[: round(self.state["limit"] * rate)]
        if not len(samples) or not RATES[0] <= rate <= RATES[1]:
            raise AudioError("nothing was recorded; try again, a little longer")
        self._keep("recording", audio.to_mono_16k(samples / np.float32(32_768), rate))

    def do_file(self, name: str, buffers: Any = ()) -> None:
        """The file is here.

        Raises
        ------
        AudioError
            If it cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="umt-upload-") as folder:
            path = Path(folder) / ("upload" + Path(readable(name)).suffix[:10])
            path.write_bytes(self._taken().tobytes())
            try:
                waveform = umtlib.read(path)
            except AudioError as error:
                raise AudioError(str(error).replace(str(path), readable(name))) from error
        self._keep(name, waveform[: round(self.state["limit"] * audio.SAMPLE_RATE)])

    def _taken(self) -> np.ndarray:
        taken, self._pieces = self._pieces, []
        return np.concatenate(taken) if taken else np.zeros(0, np.uint8)

    def _keep(self, name: str, waveform: np.ndarray) -> None:
        self.sound = np.asarray(waveform, np.float32)
        peak = float(np.abs(self.sound).max(initial=0))
        seconds = len(self.sound) / audio.SAMPLE_RATE
        quiet = "; nothing is to be heard in it: is the microphone the right one?" * (peak < 1e-3)
        loud = "; it is clipped: go farther from the microphone" * (peak > 0.999)
        self.tell(said=f"{readable(name)}: {seconds:.1f} s{quiet}{loud}")
        self.received(readable(name))

    def received(self, name: str) -> None:
        """Show what was recorded or uploaded."""
        self.show({name: self.sound})

    def words(self) -> str:
        """Return what was recorded, in words."""
        return self.state["said"] or "Nothing is recorded yet."
