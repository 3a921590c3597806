"""Copies between processor and accelerator: what arrives is what was sent."""

from __future__ import annotations

import numpy as np
import torch

from model.transfers import constant, download, upload

CPU = torch.device("cpu")


def test_what_is_downloaded_is_what_was_sent() -> None:
    numbers = torch.arange(12, dtype=torch.float32).view(3, 4)
    np.testing.assert_array_equal(download(numbers.T).numpy(), numbers.numpy().T)


def test_an_upload_takes_the_device_and_the_type() -> None:
    sent = upload(torch.tensor([1, 2]), torch.device("meta"), torch.float64)
    assert (sent.device.type, sent.dtype, sent.shape) == ("meta", torch.float64, (2,))
    kept = upload(torch.tensor([1, 2]), CPU)
    assert kept.dtype == torch.int64


def test_a_constant_is_made_once_and_serves_inference_and_training() -> None:
    with torch.inference_mode():
        first = constant((3, 4), CPU, torch.float32)
    assert constant((3, 4), CPU, torch.float32) is first
    weight = torch.ones(2, requires_grad=True)
    (weight * first).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.tolist() == [3, 4]
