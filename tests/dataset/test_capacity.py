"""Predictions against arithmetic done by hand, and the command that shows them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from engine.dataset.capacity import CapacityPlan, Workload, predict
from engine.dataset.capacity_rates import RATES
from engine.errors import BadInputError
from flows.cli import cli

GIVEN = {
    "seconds_per_image": 2.0,
    "ingest_images_per_second": 1000.0,
    "image_bytes": 1e6,
    "bytes_per_mask": 400.0,
    "bytes_per_image_row": 100.0,
    "bytes_per_file_entry": 500.0,
    "seconds_per_release": 3.0,
    "seconds_per_listed_file": 0.001,
    "audit_bytes_per_second": 1e8,
    "price_gpu_hour": 3.0,
    "price_gb_month": 0.02,
    "price_million_reads": 0.5,
}


def plan_of(**workload: int) -> CapacityPlan:
    size = {"images": 1_000_000, "masks_per_image": 100, "gpus": 10, "images_per_shard": 500}
    return predict(Workload(**{**size, "images_per_run": 100_000, **workload}), GIVEN)


def test_a_plan_is_arithmetic_on_its_rates() -> None:
    plan = plan_of()
    layout, storage, duration = plan.layout, plan.storage, plan.duration
    assert (layout.shards, layout.runs, layout.masks) == (2000, 10, 100_000_000)
    assert (layout.shard_seconds, layout.shard_bytes) == (1000.0, 500 * 100 * 400.0)
    assert (storage.masks, storage.image_tables) == (4e10, 1e8)
    assert storage.metadata == (2000 + 20) * 500
    assert storage.stored == storage.masks + storage.image_tables + storage.metadata
    assert (storage.read, storage.read_per_second) == (1e12, 5e6)
    assert duration.gpu_hours == pytest.approx(2e6 / 3600)
    hashing = 4e10 / 10 / 1e8
    assert duration.last_commit_seconds == pytest.approx(3 + hashing + 2 * 2.0)
    assert duration.wall_hours == pytest.approx(
        (1000 + 2e5 + 1000 + duration.last_commit_seconds) / 3600
    )
    assert plan.cost.gpu == pytest.approx(duration.gpu_hours * 3)
    assert plan.cost.storage_year == pytest.approx(storage.stored / 1e9 * 0.02 * 12)
    assert plan.cost.reads == 0.5


def test_the_last_run_and_the_last_shard_may_be_short() -> None:
    layout = plan_of(images=100_001).layout
    assert (layout.shards, layout.runs) == (201, 2)
    assert plan_of(images=499).layout.images_per_shard == 499


def test_one_gpu_waits_for_nobody() -> None:
    plan = plan_of(gpus=1, images=1000)
    commit = plan.duration.last_commit_seconds
    assert plan.duration.wall_hours == pytest.approx((1 + 2000 + commit) / 3600)


def test_more_gpus_take_less_time_for_the_same_money() -> None:
    few, many = plan_of(gpus=8), plan_of(gpus=64)
    assert many.duration.wall_hours < few.duration.wall_hours / 5
    assert many.cost == few.cost


def test_a_shard_is_as_large_as_a_run_makes_it() -> None:
    plan = predict(Workload(images=11_000_000, masks_per_image=100))
    assert plan.layout.images_per_shard == 512
    assert predict(Workload(images=100, masks_per_image=1)).layout.images_per_shard == 4


@pytest.mark.parametrize(
    ("workload", "advice"),
    [
        (
            {"images": 11_000_000, "images_per_shard": 256},
            "files of 10 MB: with --images-per-shard 1",
        ),
        ({"images_per_shard": 5000}, "a shard takes 167 minutes, which a kill costs"),
        ({"images_per_shard": 4}, "little beside the start of its task"),
        ({"gpus": 1000}, "leave some idle at the end"),
        ({"images": 20_000_000, "images_per_run": 10_000_000}, "every task loads it"),
        ({"gpus": 1000}, "MASKWHEEL_READ_THREADS"),
        ({"images": 100_000_000, "gpus": 7000}, "more than one machine's network"),
        ({"images": 100_000_000, "gpus": 7000}, "spread the images over several"),
    ],
)
def test_advice_names_what_stands_out(workload: dict[str, int], advice: str) -> None:
    assert any(advice in line for line in plan_of(**workload).advice)


def test_nothing_stands_out_in_a_plan_that_is_fine() -> None:
    assert plan_of().advice == ()
    assert "GPUs" in plan_of().dominates[0]


def test_an_assumed_rate_is_said_to_be_one_until_it_is_given() -> None:
    workload = Workload(images=1000, masks_per_image=10)
    assert "only assumed" in predict(workload).advice[0]
    assert not any("assumed" in line for line in predict(workload, GIVEN).advice)
    assert {rate.name for rate in predict(workload).rates} == set(RATES)
    assert all(rate.source == "given" for rate in predict(workload, GIVEN).rates)


def test_a_committer_that_is_slower_than_the_gpus_is_named() -> None:
    plan = plan_of(gpus=1_000_000, images_per_shard=1, images_per_run=1000)
    assert plan.dominates[1].startswith("time: the committer")


@pytest.mark.parametrize("name", ["images", "gpus", "images_per_run", "images_per_shard"])
def test_numbers_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="at least 1"):
        plan_of(**{name: 0})


def test_rates_that_are_none_are_refused() -> None:
    with pytest.raises(BadInputError, match="unknown rates"):
        predict(Workload(images=1, masks_per_image=1), {"seconds": 1.0})
    with pytest.raises(BadInputError, match="above 0"):
        predict(Workload(images=1, masks_per_image=1), {"seconds_per_image": 0.0})


class TestCommand:
    def test_it_shows_what_the_issue_asks_for_with_every_assumption(self) -> None:
        arguments = ["plan", "--images", "11e6", "--masks-per-image", "100", "--gpus", "64"]
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert done.exit_code == 0
        for line in ("1,100,000,000", "21,485", "Dominates:", "Change:"):
            assert line in done.output
        for rate in RATES.values():
            assert f"--{rate.name.replace('_', '-')}" in done.output
        assert done.output.count("assumed:") == sum(not rate.measured for rate in RATES.values())

    def test_rates_can_be_given_and_json_is_whole(self) -> None:
        arguments = ["plan", "--images", "5e4", "--seconds-per-image", "0.5", "--json"]
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        plan = json.loads(done.output)
        assert plan["workload"]["images"] == 50_000
        assert plan["duration"]["gpu_hours"] == pytest.approx(25_000 / 3600)
        assert {"name", "value", "unit", "source", "measured"} <= set(plan["rates"][0])

    @pytest.mark.parametrize("images", ["0", "1.5", "many", "nan", "-4"])
    def test_what_is_no_number_of_images_is_a_usage_error(self, images: str) -> None:
        done = CliRunner().invoke(cli, ["plan", "--images", images])
        assert done.exit_code == 2
        assert "number" in done.output
