from __future__ import annotations

import pytest
import torch
from torch import nn

from model.processes import (
    Place,
    Rows,
    average_gradients,
    average_values,
    find_place,
    joint_sum,
    rank,
    require_same,
)

CPU = torch.device("cpu")


def test_rows_cut_a_processs_part_out_of_all() -> None:
    joint = torch.arange(12).view(6, 2)
    parts = [Rows(0, 1, 6).of(joint), Rows(1, 3, 6).of(joint), Rows(4, 2, 6).of(joint)]
    assert torch.equal(torch.cat(parts), joint)
    assert torch.equal(Rows.alone(6).of(joint), joint)


def test_a_process_alone_holds_everything_and_changes_nothing() -> None:
    assert rank() == 0
    assert find_place(2, 5, CPU) == Place(Rows(0, 2, 2), Rows(0, 5, 5))
    value = torch.tensor(3.0, requires_grad=True)
    assert joint_sum(value, Rows.alone(5)) is value
    assert average_values({"total": 1.5}, CPU) == {"total": 1.5}
    require_same(7, "step", CPU)
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.ones(2, 2)
    average_gradients(layer, Rows.alone(5))
    assert torch.equal(layer.weight.grad, torch.ones(2, 2))
    assert layer.bias.grad is None


@pytest.mark.parametrize("total", [1, 4])
def test_all_rows_of_one_process_are_the_rows_alone(total: int) -> None:
    assert Rows.alone(total) == Rows(0, total, total)
