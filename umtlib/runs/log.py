"""The log of a training run: losses and speed, one line per report."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from umtlib import files


class Log:
    """Writes the log of a training, one line of JSON per report; lines after its step are removed.

    It begins after so many ``seconds`` of training; `on_report` receives each line as a dict.
    """

    def __init__(self, path: Path, training: Any, seconds: float, on_report: Callable | None):
        self.path, self.training, self.on_report = path, training, on_report
        self.began = time.monotonic() - seconds
        self.since, self.sums, self.stage = self.began + seconds, defaultdict(list), {}
        if training.team.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut(self.path, training.step)

    @property
    def seconds(self) -> float:
        """Seconds of training since step 0, interruptions not counted."""
        return time.monotonic() - self.began

    def add(self, report: Mapping[str, float | str]) -> None:
        """Note the report of a step."""
        for name, value in report.items():
            if not isinstance(value, str):
                self.sums[name].append(value)
        if "reconstruction" in report:
            self.sums[report["domain"]].append(report["reconstruction"])
        self.stage = {"stage": report["stage"]} if "stage" in report else {}

    def write(self) -> None:
        """Write the means since the last line, over all ranks."""
        now, together = time.monotonic(), defaultdict(list)
        for sums in self.training.team.gather(dict(self.sums)):
            for name, values in sums.items():
                together[name] += values
        rate = sum(together.pop("samples")) / (now - self.since)
        bad = sum(together["bad"]) / self.training.team.size  # all ranks skip a step together
        means = {name: round(sum(values) / len(values), 4) for name, values in together.items()}
        self.since, self.sums = now, defaultdict(list)
        if self.training.team.rank == 0:
            self.note(self.stage | {"samples_per_second": round(rate)} | means | {"bad": bad})

    def note(self, values: dict) -> None:
        """Write a line."""
        line = {"step": self.training.step, "steps": self.training.steps}
        line |= {"seconds": round(self.seconds, 1)} | values
        with self.path.open("a", encoding="utf-8") as out:
            out.write(files.to_json(line) + "\n")
        if self.on_report:
            self.on_report(line)


def tensorboard(folder: Path) -> Callable[[dict], None]:
    """Return what also writes each line for TensorBoard, if that is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda line: None
    writer = SummaryWriter(folder)

    def note(line: dict) -> None:
        for name, value in line.items():
            for domain, number in (value if isinstance(value, dict) else {"": value}).items():
                if isinstance(number, int | float):
                    writer.add_scalar(f"{name}/{domain}".rstrip("/"), number, line["step"])
        writer.flush()  # `umt` ends without waiting for threads

    return note


def _cut(path: Path, step: int) -> None:
    """Remove the lines after a step, and one that a full disk has torn, from a log."""
    if path.exists():
        with files.replacing(path) as part:
            lines = path.read_bytes().splitlines(keepends=True)
            part.write_bytes(b"".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: bytes) -> float:
    try:
        return files.parse_json(line)["step"] if line.endswith(b"\n") else math.inf
    except ValueError:
        return math.inf
