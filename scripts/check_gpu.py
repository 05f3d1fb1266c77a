"""What only an NVIDIA GPU can show, in about ten minutes, as a table for docs/gpu.md.

::

    python scripts/check_gpu.py > table.md

Every line is a measurement of its own: one that fails says why in its place, and costs no other.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
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


def told(measure: Callable[..., str], *given: object, **asked: object) -> str:
    """Return what a measurement finds, or why it finds nothing."""
    try:
        return measure(*given, **asked)
    except (UmtError, RuntimeError) as error:  # of torch
        return one_line(error)


def equal(preset: str, device: str, backend: str) -> str:
    """Return the share of codes that are the reference's, of three streams and two frames."""
    settings = runs.preset(preset).model
    torch.manual_seed(0)
    decoder = Decoder(settings.decoder, settings.encoder.latent, settings.encoder.pool).to(device)
    latent = torch.randn(3, settings.encoder.latent, 2, device=device)
    made, wanted = (
        generation.generate(
            decoder, latent, backend=one, generator=torch.Generator().manual_seed(0)
        )
        for one in (backend, "reference")
    )
    return f"{(made == wanted).float().mean().item():.1%}"


def speed(measure: Callable[..., dict], preset: str, **asked: object) -> str:
    """Return the samples per second that a function of `bench` finds."""
    return f"{measure(preset, **asked)['samples_per_second']:,}"


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
    """Print the table, line by line; other arguments are for trying this script.

    Each measurement takes so many seconds after a first step; a training's segments have ``crop``
    samples.
    """

    def line(asked: str, found: str) -> None:
        print(f"| {asked} | {found} |", flush=True)

    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"| {name}, torch {torch.__version__} | |\n|---|---|")
    for preset in presets:
        found = told(equal, preset, device, backend)
        line(f"codes equal to the reference's, `{preset}`", found)
    for preset, streams in product(presets, (1, 12, 64)):
        how = {"streams": streams, "backend": backend, "seconds": seconds}
        found = told(speed, bench.generate, preset, **how)
        line(f"generation, `{preset}`, {streams} streams, samples/s", found)
    for precision, more in product(PRECISIONS, ([], LIGHT)):
        how = {"batch": 16, "crop": crop, "set_": more, "seconds": seconds}
        memory(device, reset=True)
        found = told(speed, bench.train, trained, device=device, precision=precision, **how)
        what = f"{precision}{', recompute and 2 micro-batches' * bool(more)}"
        line(f"training, `{trained}`, {what}, samples/s", found + memory(device))
    line(f"training, `{trained}`, two processes, samples/s", together(trained, device))


if __name__ == "__main__":
    main()
