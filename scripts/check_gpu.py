"""What only an NVIDIA GPU can show, in about ten minutes, as a table for docs/gpu.md.

::

    python scripts/check_gpu.py > table.md

Every line is a measurement of its own: one that fails says why in its place, and costs no other.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bench
import torch

from umtlib import generation, runs
from umtlib.cli.printing import one_line
from umtlib.decoder import Decoder
from umtlib.errors import UmtError
from umtlib.machine.devices import PRECISIONS

DATA = Path(__file__).parents[1] / "data" / "mini"
LIGHT = ["recompute=true", "micro_batches=2"]  # what a T4 needs for `paper`


def lines(
    device: str, backend: str, presets: tuple[str, ...], trained: str, seconds: float, crop: int
) -> Iterator[tuple[str, str]]:
    """Yield what was asked and what was found.

    Parameters
    ----------
    device, backend : str
        ``"cuda"`` and ``"cuda"``; others are for trying this script.
    presets : tuple of str
        Models that generate.
    trained : str
        A preset that is trained as in the paper.
    seconds : float
        How long each measurement takes, after a first step.
    crop : int
        Samples of a segment that is trained on.
    """
    for preset in presets:
        yield f"codes equal to the reference's, `{preset}`", equal(preset, device, backend)
    for preset in presets:
        for streams in (1, 12, 64):
            asked = {"streams": streams, "backend": backend, "seconds": seconds}
            found = speed(bench.generate, preset, **asked)
            yield f"generation, `{preset}`, {streams} streams, samples/s", found
    for precision in PRECISIONS:
        for name, more in (("", []), (", recompute and 2 micro-batches", LIGHT)):
            asked = {"batch": 16, "crop": crop, "set_": more, "seconds": seconds}
            memory(device, reset=True)
            found = speed(bench.train, trained, device=device, precision=precision, **asked)
            yield f"training, `{trained}`, {precision}{name}, samples/s", found + memory(device)
    yield f"training, `{trained}`, two processes, samples/s", together(trained, device)


def equal(preset: str, device: str, backend: str) -> str:
    """Return the share of codes that are the reference's, of three streams and two frames."""
    settings = runs.preset(preset).model
    torch.manual_seed(0)
    decoder = Decoder(settings.decoder, settings.encoder.latent, settings.encoder.pool).to(device)
    latent = torch.randn(3, settings.encoder.latent, 2, device=device)
    try:
        codes = [
            generation.generate(
                decoder, latent, backend=one, generator=torch.Generator().manual_seed(0)
            )
            for one in (backend, "reference")
        ]
    except (UmtError, RuntimeError) as error:
        return one_line(error)
    return f"{(codes[0] == codes[1]).float().mean().item():.1%}"


def speed(measure: Callable[..., dict], preset: str, **asked: object) -> str:
    """Return the samples per second that a function of `bench` finds, or why it finds none."""
    try:
        return f"{measure(preset, **asked)['samples_per_second']:,}"
    except (UmtError, RuntimeError) as error:  # of torch
        return one_line(error)


def memory(device: str, reset: bool = False) -> str:
    """Return the most memory of a GPU that was used since the last reset."""
    if device != "cuda":
        return ""
    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"


def together(preset: str, device: str) -> str:
    """Return the speed of two processes, each with a GPU of its own, that ``torchrun`` starts."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        return "needs two GPUs"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
             "-m", "umtlib", "train", "--preset", preset, "--data", DATA, "--out", folder,
             "--steps", "10", "--device", device, "--set", LIGHT[0], "--set", LIGHT[1]],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.splitlines() or ["no word of it"]
            return next((line for line in lines if "umt: error: " in line), lines[-1])
        first, *_ = (Path(folder) / runs.LOG).read_text(encoding="utf-8").splitlines()
        return f"{json.loads(first)['samples_per_second']:,}"


def main(
    device: str = "cuda",
    backend: str = "cuda",
    presets: tuple[str, ...] = ("small", "paper"),
    trained: str = "paper",
    seconds: float = 10,
    crop: int = 16_000,
) -> None:
    """Print the table."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"| {name}, torch {torch.__version__} | |\n|---|---|")
    for asked, found in lines(device, backend, presets, trained, seconds, crop):
        print(f"| {asked} | {found} |", flush=True)


if __name__ == "__main__":
    main()
