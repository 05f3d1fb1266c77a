"""Watch a training, stop it and go on: the run is a process of its own, its folder the truth.

So the notebook stays free while it trains, a kernel that is restarted loses nothing that was saved,
and runs that were started elsewhere can be watched as well. Notebook:
``05_training_six_domains``.
"""

import atexit
import contextlib
import html
import io
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

import umtlib
from umtlib import checkpoint, files
from umtlib.errors import TrainingError
from umtlib.notebook import figures
from umtlib.notebook.widgets import Front

LOG, HEARD = "log.jsonl", "heard"  # in a run's folder; see `umtlib.runs`
OFTEN = 0.5  # seconds between two looks

Curve = tuple[list[float], list[float]]


class TrainingView(Front):
    """The losses of a run as it trains, what it sounds like, and buttons to stop and go on.

    Parameters
    ----------
    out : path
        The run's folder.
    data : path, optional
        The corpus. Without it a run can be watched, and not be started.
    options : sequence of str
        More of what ``umt train`` takes, as ``["--preset", "tiny", "--steps", "300"]``.
    best : float, optional
        The best reconstruction loss that is known, in nats per sample, to be drawn.
    """

    def __init__(
        self,
        out: str | os.PathLike,
        data: str | os.PathLike | None = None,
        options: Sequence[str] = (),
        best: float | None = None,
    ):
        self.out, self.data, self.options, self.best = Path(out), data, [*options], best
        self._process: subprocess.Popen | None = None
        self._console = tempfile.TemporaryFile()  # noqa: SIM115, the process writes to it
        self._follower: threading.Thread | None = None
        self._seen = None
        atexit.register(self.do_stop)  # a kernel that ends leaves no training behind
        can = data is not None
        super().__init__(running=False, begun=False, done=False, can=can, html="", said="")
        self.look()

    def do_start(self, buffers: Any = ()) -> None:
        """Train, or go on where the run was stopped.

        Raises
        ------
        TrainingError
            If no corpus was named.
        """
        if self.data is None:
            raise TrainingError("a training needs a corpus: name its folder as `data`")
        if self.state["running"]:
            return
        self._console.truncate(0)
        command = [sys.executable, "-m", "umtlib", "train", "--data", str(self.data)]
        command += ["--out", str(self.out), "--resume", *self.options]
        self._process = subprocess.Popen(  # Jupyter interrupts the whole session of a kernel
            command, stdout=self._console, stderr=self._console, start_new_session=True
        )
        self.tell(running=True, error="", said="starting")
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def do_stop(self, buffers: Any = ()) -> None:
        """Ask the run to save and to stop, which it does after the step that it is at."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self.tell(said="saving, then stopping")

    def wait(self) -> None:
        """Wait until the run has ended or was stopped."""
        # Not by `join`: one that is interrupted takes the thread for dead before Python 3.13, and
        # then the kernel closes what it sends by.
        while self._follower and self._follower.is_alive():
            time.sleep(0.1)

    def _follow(self) -> None:
        while self._process.poll() is None:
            time.sleep(OFTEN)
            self.look()
        self.look()
        self._console.seek(0)
        said = self._console.read().decode(errors="replace").strip().splitlines()
        failed = self._process.returncode not in (0, -15, 143)
        self.tell(running=False, error=said[-1] if failed and said else "")

    def look(self) -> None:
        """Show what the run's folder holds now."""
        lines = read_log(self.out / LOG)
        if lines and self.state["done"] != (done := self._done(lines[-1]["steps"])):
            self.tell(done=done)
        if not lines or self._seen == (seen := (len(lines), lines[-1])):
            return
        self._seen = seen
        self.tell(html=charts(lines, self.best), said=told(lines), begun=True)
        heard = sorted((self.out / HEARD).glob("step-*.wav"))
        newest = [path for path in heard if path.name[:13] == heard[-1].name[:13]]
        titles = {re.sub(r"^step-0*(\d+)\.(.*)\.wav$", r"\2, step \1", p.name): p for p in newest}
        if list(titles) != list(self.waveforms):
            self.show({title: umtlib.read(path) for title, path in titles.items()})

    def _done(self, steps: int) -> bool:
        """Tell whether the run has all steps: as many as its log says, if the options do not."""
        asked = re.search(r"--steps[ =](\d+)", " ".join(map(str, self.options)))
        saved = checkpoint.checkpoints(self.out)[-1:]  # after the log's last line
        return any(int(one.name[5:]) >= (int(asked[1]) if asked else steps) for one in saved)

    def words(self) -> str:
        """Return how far the run is, in words."""
        return self.state["said"] or "This run has not begun."

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        if found:
            found[0]["text/html"] += self.state["html"]
        return found


def read_log(path: Path) -> list[dict]:
    """Return the lines of a run's log; one that is being written is left out."""
    lines = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, TypeError):
            lines.append(dict(files.parse_json(line)))
    return lines


def told(lines: Sequence[Mapping]) -> str:
    """Say how far a run is, how fast, and how long it has still to go."""
    last = next((line for line in reversed(lines) if "samples_per_second" in line), lines[-1])
    step, steps, taken = last["step"], last["steps"], last["seconds"]
    recent = next((line for line in lines if line["step"] >= step - max(step // 5, 1)), last)
    done = step - recent["step"]
    pace = (taken - recent["seconds"]) / done if done else taken / max(step, 1)
    said = [f"step {step} of {steps}", f"{taken:.0f} s so far"]
    if step < steps:
        said.append(f"about {(steps - step) * pace:.0f} s left")
    if "samples_per_second" in last:
        said.append(f"{last['samples_per_second'] / 16_000:.3g} s of audio a second")
    if "stage" in last:
        said.append(f"stage {last['stage']}")
    warned = next((line["warnings"] for line in reversed(lines) if line.get("warnings")), [])
    return "; ".join([*said, *warned])


_OWN = {"step", "steps", "seconds", "samples_per_second", "bad", "accuracy", "stage", "spectra",
        "events", "reconstruction", "classifier"}  # fmt: skip


def charts(lines: Sequence[Mapping], best: float | None = None) -> str:
    """Draw the losses of a log and the classifier's accuracy, as SVG in the page's colours.

    The best reconstruction loss that is known, if one is, is in nats per sample.
    """
    reports = [line for line in lines if "samples_per_second" in line]
    checked = [line for line in lines if "nats" in line]
    # While nothing was checked, the domains are the fields that the log has no name of its own for.
    domains = checked[-1]["nats"] if checked else {k for line in reports for k in line} - _OWN

    def curve(name: str, mean: bool = False) -> Curve:
        rows = checked if mean else [line for line in reports if line.get(name) is not None]
        values = [line[name] for line in rows]
        values = [sum(v.values()) / len(v) for v in values] if mean else values
        steps = [line["step"] for line in rows]
        return steps + steps[-1:] * 2, values + values[-1:] * 2  # two points would be a yardstick

    def level(height: float) -> Curve:
        return [0, lines[-1]["step"]], [height, height]

    many = len(domains) or 1
    panels = {
        "reconstruction (nats per sample)": {
            "trained": curve("reconstruction"), "held out": curve("nats", True),
            "wrong latent": curve("nats_wrong_latent", True), "chance": level(math.log(256)),
        } | ({"best known": level(best)} if best else {}),
        "spectra (mean squared error)": {"trained": curve("spectra")},
        "classifier (nats)": {"trained": curve("classifier"), "chance": level(math.log(many))},
        "classifier, share right": {
            "trained": curve("accuracy"), "held out": curve("accuracy", True),
            "chance": level(1 / many),
        },
    }  # fmt: skip
    shown = {}
    for title, curves in panels.items():
        if any(curves[name][0] for name in curves.keys() & {"trained", "held out"}):
            shown[title] = {f"{k} {y[-1]:.3f}": (x, y) for k, (x, y) in curves.items() if x}
    return _svg(figures.curves(shown, "step"), ", ".join(shown)) if shown else ""


def _svg(figure: Figure, title: str) -> str:
    file = io.StringIO()
    figure.set_size_inches(4 * len(figure.axes), 2.8)
    for axes in figure.axes:
        axes.get_legend().set_frame_on(False)  # it would be white
    with matplotlib.rc_context({"svg.fonttype": "none", "savefig.transparent": True}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace("#000000", "currentColor")
    label = html.escape(title, quote=True)
    return drawn.replace("<svg", f"<svg role='img' aria-label='{label}' fill='currentColor'", 1)
