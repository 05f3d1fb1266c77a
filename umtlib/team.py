"""Several processes that train one model: what they say to each other.

Started by ``torchrun``, each process (rank) holds the whole model and has a batch of its own. The
gradients of what several ranks use, such as the encoder, are averaged; a decoder that one rank uses
moves by that rank's gradient. So all ranks have the same weights after every step. Without
``torchrun`` a team is one process and says nothing.
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
        """Replace tensors by their sums over all ranks, in one message.

        Raises
        ------
        TrainingError
            If another process has ended or is silent.
        """
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _listening():
            dist.all_reduce(flat)
        pieces = flat.split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))

    def mean_gradients(self, parts: Sequence[Sequence[Tensor]]) -> None:
        """Replace the gradients of each part by their mean over the ranks that have any of it.

        Parameters
        ----------
        parts : sequence of sequence of Tensor
            Parameters; the same on all ranks. A part that no rank uses keeps having no gradient.

        Raises
        ------
        TrainingError
            If another process has ended or is silent.
        """
        if self.size == 1:
            return
        mine = [float(any(one.grad is not None for one in part)) for part in parts]
        users = torch.tensor(mine, device=self.device)
        self.sum([users])
        for part, count in zip(parts, users.tolist(), strict=True):
            if count:
                gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in part]
                self.sum(gradients)
                for parameter, gradient in zip(part, gradients, strict=True):
                    parameter.grad = gradient / count

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set on any rank.

        Raises
        ------
        TrainingError
            If another process has ended or is silent.
        """
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        with _listening():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order.

        Raises
        ------
        TrainingError
            If another process has ended or is silent.
        """
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
        reason = str(error).partition("\n")[0][:200]  # a trace of C++ follows
        raise TrainingError(
            f"another process of the team has ended or is silent ({reason}); see what it said, "
            "then start all of them again with --resume"
        ) from error


@contextmanager
def join(device: str = "cpu") -> Iterator[Team]:
    """Join the team that ``torchrun`` started, or be a team of one.

    Parameters
    ----------
    device : str
        ``"cpu"`` (gloo) or ``"cuda"`` (nccl, one GPU for each rank of a machine).

    Raises
    ------
    TrainingError
        If there is no such device, the environment is not that of ``torchrun``, or not all ranks
        come within `JOINING`.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Team(device=place(device))
        return
    here = place(device, os.environ.get("LOCAL_RANK", ""))
    try:
        with _listening():
            store, rank, size = next(dist.rendezvous("env://", timeout=JOINING))
            store.set(f"here/{rank}", "")
            store.wait([f"here/{one}" for one in range(size)], JOINING)
            backend = "nccl" if here.type == "cuda" else "gloo"
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
            )
    except ValueError as error:  # of the environment
        raise TrainingError(f"no team can be joined: {error}; start it by torchrun") from error
    try:
        yield Team(rank, size, here)
    finally:
        dist.destroy_process_group()


def place(device: str, rank: str = "0") -> torch.device:
    """Return the device of a rank of this machine.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.
    rank : str
        The number of the GPU.

    Raises
    ------
    TrainingError
        If there is no such device.
    """
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise TrainingError(f"device {device!r} must be cpu or cuda")
    there = torch.cuda.device_count()
    if not rank.isdecimal() or int(rank) >= there:
        raise TrainingError(
            f"there is no GPU number {rank!r} for device 'cuda': torch sees {there}; see umt doctor"
        )
    torch.cuda.set_device(int(rank))
    return torch.device("cuda", int(rank))
