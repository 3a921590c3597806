"""Several processes that train one model: who holds what, and gradients of all as if of one.

Every process brings a batch of its own; together they are the joint batch. A loss is a mean over
the masks of a process, so gradients are averaged by their number of masks: a step of several
processes is then the step of one process on the joint batch. (Exactly so for a model without batch
norm, which normalises by the batch of its own process.) Started by torchrun, or alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows ``first`` to ``first + count`` of the ``total`` rows that all processes hold."""

    first: int
    count: int
    total: int

    @classmethod
    def alone(cls, count: int) -> Rows:
        """Return the rows of a process that holds all of them."""
        return cls(0, count, count)

    def of(self, joint: Tensor) -> Tensor:
        """Cut this process's rows out of all."""
        return joint[self.first : self.first + self.count]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the batch of this process stands in the joint batch."""

    images: Rows
    masks: Rows


def rank() -> int:
    """This process's number in its group; 0 when training alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def find_place(images: int, masks: int, device: torch.device) -> Place:
    """Tell the other processes how much this one holds; learn where that stands among theirs.

    Args:
        images: number of images of this process.
        masks: number of its masks.
        device: where the processes exchange tensors.
    """
    if not dist.is_initialized():
        return Place(Rows.alone(images), Rows.alone(masks))
    table_P2 = torch.zeros(dist.get_world_size(), 2, dtype=torch.int64, device=device)
    table_P2[rank()] = torch.tensor([images, masks], device=device)
    dist.all_reduce(table_P2)
    before, total = table_P2[: rank()].sum(0).tolist(), table_P2.sum(0).tolist()
    return Place(Rows(before[0], images, total[0]), Rows(before[1], masks, total[1]))


def require_same(value: int, name: str, device: torch.device) -> None:
    """Stop if the processes do not agree on a number.

    Raises:
        ValueError: they do not; in all of them, so that none waits for another.
    """
    if not dist.is_initialized():
        return
    values = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
    values[rank()] = value
    dist.all_reduce(values)
    if (values != value).any():
        raise ValueError(f"the processes differ in {name}: {values.tolist()}")


def joint_sum(own: Tensor, rows: Rows) -> Tensor:
    """Add up a value over all processes, with gradients that `average_gradients` makes right.

    The average takes this process's gradients times count / total. Those of a sum should count in
    full, so they are made larger by as much beforehand.
    """
    if rows.count == rows.total:
        return own
    joint = own.detach().clone()
    dist.all_reduce(joint)
    scaled = own * (rows.total / rows.count)
    return joint + (scaled - scaled.detach())


def average_gradients(model: nn.Module, rows: Rows) -> None:
    """Average gradients over the processes by their share of rows, as one flat message.

    A weight that another process used counts as zero here; one that nobody used keeps no gradient,
    so the optimiser leaves it alone, as it would in one process.
    """
    if not dist.is_initialized():
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    used = torch.tensor(
        [float(p.grad is not None) for p in parameters], device=parameters[0].device
    )
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    share = rows.count / rows.total
    flat = torch.cat([*(share * g.reshape(-1) for g in gradients), used])
    dist.all_reduce(flat)
    *parts, users = torch.split(flat, [*(g.numel() for g in gradients), len(used)])
    for parameter, part, count in zip(parameters, parts, users.tolist(), strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype) if count else None


def average_values(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Average numbers of the same names over the processes; they go into a log."""
    if not dist.is_initialized():
        return values
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(numbers)
    return dict(zip(values, (numbers / dist.get_world_size()).tolist(), strict=True))
