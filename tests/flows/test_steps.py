"""Steps of a flow where no Prefect is: tried again as its tasks are, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from engine.config import Settings
from engine.errors import BadInputError, TransientError
from flows.steps import Step, in_prefect_run, step
from flows.workers import hired, one_suffices


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("flows.steps.time.sleep", waited.append)
    return waited


def failing(times: int, error: Exception) -> Callable[[int], int]:
    """Return what fails so often, and doubles then."""
    left = [error] * times

    def double(number: int) -> int:
        if left:
            raise left.pop()
        return 2 * number

    return double


def test_a_step_outside_of_prefect_is_a_call(pauses: list[float]) -> None:
    assert not in_prefect_run()
    assert step("double {number}")(failing(0, TransientError()))(3) == 6
    assert pauses == []


def test_what_may_pass_is_tried_again_after_the_same_pauses_as_in_prefect(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    double = Step(failing(3, TransientError("the store is away")), "double {number}")
    with caplog.at_level(logging.WARNING, logger="flows"):
        assert double(3) == 6
    assert pauses == double.task.retry_delay_seconds[:3] == [2, 5, 15]
    assert caplog.messages == ["double failed for now, and is tried again: the store is away"] * 3


def test_what_does_not_pass_is_raised_in_the_end(pauses: list[float]) -> None:
    double = Step(failing(10, TransientError("gone")), "double")
    with pytest.raises(TransientError, match="gone"):
        double(3)
    assert len(pauses) == double.task.retries


def test_what_cannot_pass_is_raised_at_once(pauses: list[float]) -> None:
    with pytest.raises(BadInputError):
        Step(failing(1, BadInputError("no such model")), "double")(3)
    assert pauses == []


def test_alone_each_call_gives_its_result_or_its_exception(pauses: list[float]) -> None:
    broken = BadInputError("damaged")
    double: Step[..., int] = Step(failing(1, broken), "double {number}")
    with hired(Settings(), None) as crew:
        results = crew.each(double, ({"number": n} for n in range(3)))
        assert list(results) == [broken, 2, 4]
        assert crew.share_this_process


@pytest.mark.parametrize(
    ("settings", "alone"),
    [
        (Settings(), True),
        (Settings(workers=1), True),
        (Settings(workers=2), False),
        (Settings(task_runner="processes"), False),
    ],
)
def test_only_one_worker_of_this_process_needs_no_prefect(settings: Settings, alone: bool) -> None:
    assert one_suffices(settings) is alone
