"""The policy as a file: it says what it is, and refuses what it cannot be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import hypothesis.strategies as st
import pytest
from hypothesis import given

from engine.annotation.choosing import OrderName
from engine.errors import BadInputError
from engine.objects import LocalStore
from engine.wheel.policy import (
    POLICY_FILE,
    PRESETS,
    Policy,
    ReleasePolicy,
    RetrainingPolicy,
    StagePolicy,
    find_policy,
    init_policy,
    load_policy,
    parse_policy,
    policy_text,
)
from engine.wheel.policy_values import ORDERS
from tests.flows.terminal import Terminal


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_written_and_read_is_the_same_and_has_words_for_each_value(preset: str) -> None:
    text = policy_text(PRESETS[preset])
    assert parse_policy(text) == PRESETS[preset]
    lines = text.splitlines()
    for before, line in pairwise(lines):
        if " = " in line or line.endswith(" ="):
            assert before.startswith("# "), line


def test_the_paper_s_numbers_say_where_they_stand() -> None:
    text = policy_text(PRESETS["paper"])
    assert "4.3M masks on 120k images, the model retrained 6 times" in " ".join(
        line.removeprefix("# ") for line in text.splitlines()
    )
    assert "images = 120_000" in text


@given(
    instructions=st.text(st.characters(codec="utf-8", exclude_characters="\r")),
    export=st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3),
    steps=st.none() | st.integers(1, 10**9),
    review=st.booleans(),
)
def test_whatever_it_holds_comes_back(
    instructions: str, export: list[str], steps: int | None, review: bool
) -> None:
    policy = Policy(
        manual=StagePolicy(instructions=instructions, review=review),
        retraining=RetrainingPolicy(steps=steps),
        release=ReleasePolicy(export=tuple(export)),
    )
    assert parse_policy(policy_text(policy)) == policy


def test_values_that_are_left_out_are_the_preset_s() -> None:
    policy = parse_policy('preset = "paper"\n[semi]\nimages = 1000\n')
    paper = PRESETS["paper"]
    assert policy == replace(paper, semi=replace(paper.semi, images=1000))
    assert parse_policy("") == PRESETS["small"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[manual]\nimagse = 3", "manual.imagse: there is no such value; did you mean 'images'?"),
        ("[retrainig]", "retrainig: there is no such value; did you mean 'retraining'?"),
        ("[manual]\nimages = -3", "manual.images: got -3; expected 0 to 1,000,000,000"),
        ("[manual]\nimages = true", "manual.images: got true; expected a whole number"),
        ("[manual]\nimages = 2.5", "manual.images: got 2.5; expected a whole number"),
        ("[manual]\nreview = 1", "manual.review: got 1; expected true or false"),
        ("[manual]\nimages = 3\nretrainings = 4", "an image per round at least"),
        ("[semi]\norder = 'magic'", "semi.order: got 'magic'; expected one of 'listed', 'random'"),
        ("[automatic]\nprecision = 'half'", "automatic.precision: got 'half'; expected one of"),
        ("[audit]\nmin_mean_iou = 90", "audit.min_mean_iou: got 90.0; expected 0 to 1"),
        ("[release]\nexport = 'coco'", "release.export: got 'coco'; expected a list of texts"),
        ("attempts = 0", "attempts: got 0; expected 1 to 100"),
        ("manual = 5", "manual: got 5; expected a table [manual]"),
        ("preset = 'big'", "preset: got 'big'; expected paper or small"),
        ("attempts = \nx = 1", "line 1, column 12"),
    ],
)
def test_what_cannot_be_is_refused_with_the_key_s_path(text: str, complaint: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parse_policy(text, "/birds/policy.toml")
    assert str(refused.value).startswith("/birds/policy.toml: ")
    assert complaint in str(refused.value)


def test_whole_numbers_do_where_any_number_is_expected() -> None:
    assert parse_policy("[audit]\nmin_mean_iou = 1").audit.min_mean_iou == 1.0


def test_a_workspace_has_its_own_policy_once_somebody_wrote_one(store: LocalStore) -> None:
    assert find_policy(store) is None
    assert load_policy(store) == PRESETS["small"]
    assert init_policy(store, "paper")
    assert not init_policy(store, "small")
    assert find_policy(store) == load_policy(store) == PRESETS["paper"]
    assert load_policy(store, "small") == PRESETS["small"]


def test_a_policy_can_be_named_by_its_file(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("attempts = 7")
    assert load_policy(store, str(tmp_path / "mine.toml")).attempts == 7
    with pytest.raises(BadInputError, match="expected paper or small, or the path"):
        load_policy(store, "missing.toml")


@pytest.mark.parametrize(("images", "in_each"), [(0, 60), (3, 1), (33, 9), (100, 30), (5000, 60)])
def test_a_first_policy_leaves_photos_for_the_automatic_stage(
    store: LocalStore, images: int, in_each: int
) -> None:
    init_policy(store, "small", images=images)
    policy = find_policy(store)
    assert policy is not None
    assert (policy.manual.images, policy.semi.images) == (in_each, in_each)


def test_the_orders_are_those_that_images_can_be_chosen_by() -> None:
    assert get_args(OrderName) == ORDERS


def test_rounds_share_a_stage_s_images() -> None:
    stage = StagePolicy(images=10, retrainings=3)
    assert [stage.images_of_round(n) for n in (1, 2, 3, 4)] == [4, 3, 3, 3]


def test_the_command_writes_shows_and_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = Terminal(tmp_path / "birds", capsys, ("policy",))
    policy("check", code=3)
    assert "maskwheel policy init" in policy.err
    assert POLICY_FILE in policy("init", "--preset", "paper")
    policy("init", code=3)
    assert "is there already" in policy.err
    assert "120,000" not in policy("show", "small")
    assert policy("show") == policy_text(PRESETS["paper"])
    assert "11 rounds, in which people annotate 300,000 images" in policy("check")
    (tmp_path / "mine.toml").write_text("[manual]\nimagse = 5\n")
    policy("check", tmp_path / "mine.toml", code=3)
    assert "mine.toml: manual.imagse" in policy.err
