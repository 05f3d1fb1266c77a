"""Several processes that train or measure one model: what they say to each other.

Started by ``torchrun``, each process (rank) of a training holds the whole model and has a batch of
its own. The gradients of what several ranks use, such as the encoder, are averaged; a decoder that
one rank uses moves by that rank's gradient, which `DistributedDataParallel` would divide by all. So
all ranks have the same weights after every step. Without ``torchrun`` a team is one process.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from umtlib.errors import TrainingError

JOINING = timedelta(seconds=30)  # for all ranks to come; torch may take it twice
PATIENCE = timedelta(minutes=10)  # a rank that is silent for longer ends the run


@dataclass(frozen=True)
class Team:
    """A process among others; each method must be called by all, and fails if one has ended."""

    rank: int = 0  # number of this process; 0 writes the log and the checkpoints
    size: int = 1  # of all processes
    device: torch.device = torch.device("cpu")  # where this one computes

    def mean_gradients(self, parts: Sequence[Sequence[Tensor]]) -> None:
        """Replace the gradients of each part by their mean over the ranks that have any of it.

        Parts are parameters, the same on all ranks. One that no rank uses keeps its lack of any.
        """
        if self.size == 1:
            return
        mine = [float(any(one.grad is not None for one in part)) for part in parts]
        users = self._reduced(torch.tensor(mine, device=self.device)).tolist()
        for part, count in zip(parts, users, strict=True):
            if count:
                rows = [torch.zeros_like(x) if x.grad is None else x.grad for x in part]
                mean = self._reduced(torch.cat([row.flatten() for row in rows])) / count
                for x, row in zip(part, mean.split([x.numel() for x in part]), strict=True):
                    x.grad = row.view_as(x)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        return bool(self._reduced(torch.tensor(float(flag), device=self.device)).item())

    def share(self, things: Sequence[Any]) -> Sequence[Any]:
        """Return those of all things that this process is to do."""
        return things[self.rank :: self.size]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order."""
        values = [value] * self.size
        if self.size > 1:
            with listening():
                dist.all_gather_object(values, value)
        return values

    def _reduced(self, tensor: Tensor) -> Tensor:
        with listening():
            dist.all_reduce(tensor)
        return tensor


@contextmanager
def listening() -> Iterator[None]:
    """Raise a plain TrainingError, in place of gloo's or nccl's, if a message does not come."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0][:200]  # a trace of C++ follows
        raise TrainingError(
            f"another process of the team has ended or is silent ({reason}); see what it said, "
            "then start all of them again, a training with --resume"
        ) from error


@contextmanager
def join(device: torch.device, patience: timedelta = PATIENCE) -> Iterator[Team]:
    """Join the team that ``torchrun`` started, or be a team of one.

    On the CPU its messages go by gloo, between GPUs by nccl; a rank may be silent for `patience`.
    Raises TrainingError if the environment is not that of ``torchrun``, or not all ranks come
    within `JOINING`.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Team(device=device)
        return
    try:
        with listening():
            store, rank, size = next(dist.rendezvous("env://", timeout=JOINING))
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=patience
            )
    except ValueError as error:  # of the environment
        raise TrainingError(f"no team can be joined: {error}; start it by torchrun") from error
    try:
        yield Team(rank, size, device)
    finally:
        dist.destroy_process_group()
