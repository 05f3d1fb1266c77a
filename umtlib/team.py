"""Several processes that train one model: what they say to each other.

Started by ``torchrun``, each process (rank) holds the encoder and the classifier, and averages
their gradients with the others. With as many ranks as domains, each rank trains the decoder of one
domain, as in the paper; with any other number all decoders are averaged too. Without ``torchrun``
a team is one process and says nothing.
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

PATIENCE = timedelta(minutes=10)  # a rank that is silent for longer ends the run


@dataclass(frozen=True)
class Team:
    """A process among others, and how it speaks with them.

    Attributes
    ----------
    rank : int
        Number of this process, from 0. Rank 0 writes the log and the checkpoints.
    size : int
        Number of processes.
    device : torch.device
        Where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all ranks, in one message."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _listening():
            dist.all_reduce(flat)
        pieces = flat.split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        with _listening():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        with _listening():
            dist.all_gather_object(values, value)
        return values


@contextmanager
def _listening() -> Iterator[None]:
    """Say it plainly when a message does not come through."""
    try:
        yield
    except RuntimeError as error:  # of gloo and nccl alike
        raise TrainingError(
            f"another process of the team has ended or is silent ({error}); see what it said, then "
            "start all of them again with --resume"
        ) from error


@contextmanager
def join(device: str = "cpu") -> Iterator[Team]:
    """Join the team that ``torchrun`` started, or be a team of one.

    Parameters
    ----------
    device : str
        ``"cpu"`` (gloo) or ``"cuda"`` (nccl, one GPU for each rank of a machine).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team(device=torch.device(device))
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
