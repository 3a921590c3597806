"""The promotion gate: what it lets through, what it refuses, and what it writes down."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from engine.announcements import Announcement, ModelPromoted
from engine.automatic.shard_worker import ModelSpec, pinned
from engine.dataset.labelled_sets import CocoMasks
from engine.errors import BadInputError, WorkspaceError
from engine.evaluation.points import ModelScores, PromptConfig
from engine.images import encode_jpeg
from engine.learning.decisions import current_champion, read_log, record, resolve
from engine.learning.measurement import (
    Measured,
    fingerprint,
    measure,
    metrics_of,
    read_scores,
)
from engine.learning.promotion import GateConfig, compare, promote, roll_back
from engine.learning.registry import BUILT_IN, find_version, register
from engine.objects import LocalStore
from engine.records import ModelMetric, ModelOrigin, ModelVersion, PromotionDecision
from model import Sam, build_sam
from model.evaluate import AnswerQuality
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, small_sam

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
IMAGES, PER_IMAGE = 40, 5
RANDOM = np.random.default_rng(0)
BASE_N = RANDOM.uniform(0.3, 0.8, IMAGES * PER_IMAGE)


def quality(iou_N: ArrayLike) -> AnswerQuality:
    iou_N1 = np.clip(np.asarray(iou_N, dtype=np.float64), 0, 1)[:, None]
    return AnswerQuality(iou_N1, iou_N1, np.zeros(len(iou_N1), dtype=np.int64))


def measured(
    click: ArrayLike,
    box: ArrayLike | None = None,
    *,
    data: str = "birds",
    per_image: int = PER_IMAGE,
    mark: str = "f",
) -> Measured:
    """Scores of a model with these IoUs, mask by mask."""
    count = len(np.asarray(click))
    scores = ModelScores(
        method="model",
        data=data,
        image_N=np.arange(count) // per_image,
        area_N=np.full(count, 100),
        votes_N=np.ones(count, dtype=np.int64),
        by_clicks=(quality(click),),
        box=None if box is None else quality(box),
    )
    return Measured(fingerprint=mark, scores=scores)


def noise(scale: float, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, scale, len(BASE_N))


CHAMPION = measured(BASE_N, BASE_N)


def test_a_better_candidate_is_accepted_with_the_true_numbers() -> None:
    better = compare([measured(BASE_N + 0.05 + noise(0.02), BASE_N)], [CHAMPION], GateConfig())
    assert better.reasons == ()
    click, box = better.rows
    assert (click.row, box.row) == ("birds, 1 click", "birds, box")
    assert (click.images, click.masks) == (IMAGES, len(BASE_N))
    assert click.champion == pytest.approx(BASE_N.mean())
    assert click.difference == pytest.approx(0.05, abs=0.005)
    assert 0.04 < click.low < click.difference < click.high < 0.06
    assert box.difference == box.low == box.high == 0


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (measured(BASE_N - 0.05, BASE_N), "birds, 1 click: worse by 5.00 points"),
        (measured(BASE_N, BASE_N), "birds, 1 click: better by 0.00 points; more than 0.50"),
        (measured(BASE_N + 0.004, BASE_N), "birds, 1 click: better by 0.40 points"),
        (measured(BASE_N + 0.05, BASE_N - 0.02), "birds, box: worse by 2.00 points"),
    ],
)
def test_worse_equal_hardly_better_and_elsewhere_worse_candidates_are_refused(
    candidate: Measured, reason: str
) -> None:
    assert any(reason in given for given in compare([candidate], [CHAMPION], GateConfig()).reasons)


def test_a_gain_that_may_be_luck_is_refused() -> None:
    lucky = BASE_N.copy()
    lucky[: 2 * PER_IMAGE] = 1  # two photos out of forty
    found = compare([measured(lucky, BASE_N)], [CHAMPION], GateConfig())
    assert found.rows[0].difference > 0.02
    [reason] = found.reasons
    assert "may be luck" in reason
    assert compare([measured(lucky + 0.01, BASE_N)], [CHAMPION], GateConfig()).reasons == ()


def test_a_candidate_that_is_worse_on_another_set_is_refused_by_the_set_s_name() -> None:
    better, worse = measured(BASE_N + 0.1), measured(BASE_N - 0.03, data="night", mark="n")
    same = measured(BASE_N, data="night", mark="n")
    found = compare([better, worse], [measured(BASE_N), same], GateConfig())
    assert [reason.partition(":")[0] for reason in found.reasons] == ["night, 1 click"]
    assert not compare([better, same], [measured(BASE_N), same], GateConfig()).reasons
    tolerant = GateConfig(tolerance=0.04)
    assert not compare([better, worse], [measured(BASE_N), same], tolerant).reasons


def test_more_masks_of_the_same_photos_do_not_make_a_difference_surer() -> None:
    gain = np.repeat(noise(0.2)[:IMAGES], PER_IMAGE)
    once = compare(
        [measured(0.5 + gain[::PER_IMAGE], per_image=1)],
        [measured(np.full(IMAGES, 0.5), per_image=1)],
        GateConfig(),
    )
    often = compare([measured(0.5 + gain)], [measured(np.full(len(gain), 0.5))], GateConfig())
    assert often.rows[0].low == pytest.approx(once.rows[0].low)
    assert often.rows[0].high == pytest.approx(once.rows[0].high)
    assert once.rows[0].high - once.rows[0].low > 0.05


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    config, covered = GateConfig(resamples=400), 0
    for _ in range(200):
        gain = 0.02 + np.repeat(random.normal(0, 0.05, IMAGES), PER_IMAGE)
        row = compare([measured(0.5 + gain)], [measured(np.full(len(gain), 0.5))], config).rows[0]
        covered += row.low <= 0.02 <= row.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_scores_give_the_same_comparison() -> None:
    candidate = measured(BASE_N + noise(0.1), BASE_N)
    assert compare([candidate], [CHAMPION], GateConfig()) == compare(
        [candidate], [CHAMPION], GateConfig()
    )
    other = compare([candidate], [CHAMPION], GateConfig(seed=1))
    assert other.rows[0].low != compare([candidate], [CHAMPION], GateConfig()).rows[0].low


@pytest.mark.parametrize(
    "other",
    [
        [],
        [CHAMPION, CHAMPION],
        [measured(BASE_N, BASE_N, mark="another")],
        [measured(BASE_N, BASE_N, per_image=4)],
        [measured(BASE_N)],
    ],
)
def test_scores_of_different_masks_are_not_compared(other: list[Measured]) -> None:
    with pytest.raises(BadInputError, match="different masks or prompts"):
        compare([CHAMPION], other, GateConfig())


def test_too_few_photos_are_refused() -> None:
    few = measured(BASE_N[:45])
    with pytest.raises(BadInputError, match="has 9 images with masks; the gate needs at least 10"):
        compare([few], [few], GateConfig())
    with pytest.raises(BadInputError, match="has 0 images"):
        compare([], [], GateConfig())


@pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"min_images": 1}, {"resamples": 0}])
def test_a_gate_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match=next(iter(wrong))):
        GateConfig(**wrong)  # type: ignore[arg-type]


class Bench:
    """A store with models whose scores are made up: model m<n> reaches `gains[n]` more."""

    def __init__(self, root: Path) -> None:
        self.store = LocalStore(root)
        self.gains: dict[str, float] = {}
        self.heard: list[PromotionDecision] = []
        self.while_measuring: Callable[[], object] = lambda: None

    def add(self, gain: float, *metrics: ModelMetric) -> ModelVersion:
        seed = len(self.gains)
        sam, origin = small_sam(SMALL_COMPACT, seed), ModelOrigin(kind="trained")
        version = register(self.store, sam, origin, metrics=metrics, now=NOW)
        self.gains[version.model_id] = gain
        return version

    def score(self, sam: Sam) -> tuple[Measured, ...]:
        self.while_measuring()
        return (measured(BASE_N + self.gains.get(sam.model_id(), 0.0), BASE_N),)

    def promote(self, name: str, *, force: bool = False, note: str = "") -> PromotionDecision:
        return promote(
            self.store,
            name,
            self.score,
            GateConfig(),
            by="ann",
            now=NOW,
            note=note,
            force=force,
            device="cpu",
            announce=self._hear,
        )

    def roll_back(self, name: str | None = None) -> PromotionDecision:
        return roll_back(self.store, name, by="bob", now=NOW, announce=self._hear)

    def _hear(self, announcement: Announcement) -> None:
        assert isinstance(announcement, ModelPromoted)
        assert announcement.workspace == self.store.address
        self.heard.append(announcement.decision)

    @property
    def champion(self) -> str:
        return current_champion(self.store).name


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "workspace")


def test_the_built_in_model_is_the_first_champion(bench: Bench) -> None:
    assert bench.champion == BUILT_IN == resolve(bench.store, "champion").name
    assert pinned(ModelSpec("champion", workspace=str(bench.store.root))).model == BUILT_IN


def test_a_better_model_becomes_champion_and_is_announced_once(bench: Bench) -> None:
    version = bench.add(0.05)
    decision = bench.promote("m1", note="more night photos")
    assert (decision.outcome, decision.champion, decision.reasons) == ("promoted", "m1", ())
    assert (decision.decided_by, decision.decided_at) == ("ann", NOW)
    assert (decision.note, decision.candidate_sha256) == ("more night photos", version.sha256)
    assert bench.heard == [decision]
    assert bench.champion == "m1"
    assert pinned(ModelSpec("champion", workspace=str(bench.store.root))).model == "m1"
    assert read_log(bench.store).decisions == (decision,)


@pytest.mark.parametrize("gain", [-0.05, 0.0, 0.003])
def test_a_refusal_leaves_the_champion_and_is_recorded_with_its_numbers(
    bench: Bench, gain: float
) -> None:
    bench.add(gain)
    decision = bench.promote("m1")
    assert (decision.outcome, decision.champion) == ("refused", BUILT_IN)
    assert decision.reasons
    assert decision.rows[0].difference == pytest.approx(gain)
    assert (decision.margin, decision.tolerance) == (0.005, 0.01)
    assert bench.heard == []
    assert bench.champion == BUILT_IN
    assert read_log(bench.store).decisions == (decision,)


def test_force_promotes_and_leaves_on_record_what_it_was_forced_past(bench: Bench) -> None:
    bench.add(-0.05)
    decision = bench.promote("m1", force=True, note="a new camera")
    assert (decision.outcome, decision.champion, decision.note) == ("forced", "m1", "a new camera")
    assert any("worse by 5.00 points" in reason for reason in decision.reasons)
    assert bench.heard == [decision]


def test_force_changes_nothing_about_a_model_that_passes(bench: Bench) -> None:
    bench.add(0.05)
    assert bench.promote("m1", force=True).outcome == "promoted"


def test_a_tampered_metric_is_refused_even_by_force(bench: Bench) -> None:
    claim = ModelMetric(row="birds, 1 click", fingerprint="f", mean_iou=BASE_N.mean() + 0.08)
    bench.add(0.05, claim)
    for force in (False, True):
        decision = bench.promote("m1", force=force)
        assert (decision.outcome, decision.champion) == ("refused", BUILT_IN)
        assert "tampered metric: model m1" in decision.reasons[0]
    assert bench.heard == []


def test_a_metric_edited_in_the_record_is_refused(bench: Bench) -> None:
    true = metrics_of([measured(BASE_N + 0.05, BASE_N)])
    bench.add(0.05, *true)
    path = bench.store.root / "models/m1/version.json"
    fields = json.loads(path.read_text())
    fields["metrics"][0]["mean_iou"] += 0.1
    path.write_text(json.dumps(fields))
    assert "tampered metric" in bench.promote("m1").reasons[0]


def test_a_metric_that_is_no_number_is_refused(bench: Bench) -> None:
    bench.add(0.05, ModelMetric(row="birds, box", fingerprint="f", mean_iou=2.0))
    assert bench.promote("m1").outcome == "refused"


def test_true_metrics_and_metrics_of_other_sets_pass(bench: Bench) -> None:
    true = metrics_of([measured(BASE_N + 0.05, BASE_N)])
    elsewhere = ModelMetric(row="birds, 1 click", fingerprint="another", mean_iou=0.99)
    bench.add(0.05, *true, elsewhere)
    assert bench.promote("m1").outcome == "promoted"


def test_a_champion_with_a_tampered_metric_is_noticed_too(bench: Bench) -> None:
    bench.add(0.05, ModelMetric(row="birds, 1 click", fingerprint="f", mean_iou=0.1))
    roll_back(bench.store, "m1", by="ann", now=NOW)
    bench.add(0.15)
    decision = bench.promote("m2")
    assert decision.outcome == "refused"
    assert "tampered metric: model m1" in decision.reasons[0]


def test_tampered_weights_are_refused_before_anything_is_measured(bench: Bench) -> None:
    bench.add(0.05)
    path = bench.store.root / "models/m1/weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    bench.while_measuring = lambda: pytest.fail("measured")
    for force in (False, True):
        with pytest.raises(WorkspaceError, match="tampered with or damaged"):
            bench.promote("m1", force=force)
    with pytest.raises(WorkspaceError, match="tampered with or damaged"):
        bench.roll_back("m1")
    assert read_log(bench.store).decisions == ()


def test_the_champion_cannot_be_promoted_again(bench: Bench) -> None:
    bench.add(0.05)
    bench.promote("m1")
    for name in ("m1", "champion"):
        with pytest.raises(BadInputError, match="m1 is the champion already"):
            bench.promote(name)
    with pytest.raises(BadInputError, match="unknown model 'm2'"):
        bench.promote("m2")


def test_the_scores_of_every_mask_are_kept_under_their_hash(bench: Bench) -> None:
    bench.add(0.05)
    decision = bench.promote("m1")
    assert decision.candidate_scores is not None
    assert decision.champion_scores is not None
    candidate = read_scores(bench.store, decision.candidate_scores)
    champion = read_scores(bench.store, decision.champion_scores)
    gain = candidate["birds, 1 click"] - champion["birds, 1 click"]
    assert gain.mean() == pytest.approx(decision.rows[0].difference)
    assert len(gain) == len(BASE_N)
    path = bench.store.root / f"models/scores/{decision.candidate_scores}.json"
    path.write_text(path.read_text().replace("0.4", "0.9", 1))
    with pytest.raises(WorkspaceError, match="was changed"):
        read_scores(bench.store, decision.candidate_scores)


def test_rolling_back_is_a_new_decision_and_history_stays(bench: Bench) -> None:
    for gain in (0.05, 0.10):
        bench.add(gain)
    first, second = bench.promote("m1"), bench.promote("m2")
    third = bench.roll_back()
    assert (third.number, third.outcome, third.champion) == (3, "rolled back", "m1")
    assert (third.previous_champion, third.decided_by) == ("m2", "bob")
    assert read_log(bench.store).decisions == (first, second, third)
    assert bench.champion == "m1"
    assert bench.heard == [first, second, third]
    assert bench.promote("m2").outcome == "promoted"


def test_rolling_back_twice_goes_back_two_steps_and_no_further_than_the_first(
    bench: Bench,
) -> None:
    for gain in (0.05, 0.10):
        bench.add(gain)
    bench.promote("m1")
    bench.promote("m2")
    assert bench.roll_back().champion == "m1"
    assert bench.roll_back().champion == BUILT_IN
    with pytest.raises(BadInputError, match="bundled is the first champion"):
        bench.roll_back()
    assert bench.roll_back("m2").champion == "m2"
    assert bench.roll_back().champion == BUILT_IN
    with pytest.raises(BadInputError, match="bundled is the champion already"):
        bench.roll_back(BUILT_IN)


def test_a_decision_made_meanwhile_counts(bench: Bench) -> None:
    for gain in (0.05, 0.10):
        bench.add(gain)
    once = iter([True])

    def meanwhile() -> None:
        if next(once, False):
            bench.while_measuring = lambda: None
            bench.promote("m2")

    bench.while_measuring = meanwhile
    decision = bench.promote("m1")
    assert (decision.number, decision.outcome) == (2, "refused")
    assert (decision.previous_champion, decision.champion) == ("m2", "m2")
    assert decision.rows[0].difference == pytest.approx(-0.05)


def test_promotions_at_once_take_numbers_of_their_own_and_the_best_model_wins(
    bench: Bench,
) -> None:
    versions = [bench.add(0.02 * (i + 1)) for i in range(5)]
    together = threading.Barrier(len(versions), timeout=60)
    first = threading.local()

    def meet() -> None:
        if not getattr(first, "met", False):
            first.met = True
            together.wait()

    bench.while_measuring = meet  # so that all of them compare with the first champion
    with ThreadPoolExecutor(len(versions)) as pool:
        decisions = list(pool.map(lambda v: bench.promote(v.name), versions))
    log = read_log(bench.store).decisions
    assert sorted(d.number for d in decisions) == [1, 2, 3, 4, 5] == [d.number for d in log]
    assert bench.champion == "m5"
    for before, after in pairwise(log):
        assert after.previous_champion == before.champion
    assert len(bench.heard) == sum(d.outcome == "promoted" for d in log)


def test_rollbacks_at_once_go_back_one_step(bench: Bench) -> None:
    for gain in (0.05, 0.10):
        bench.add(gain)
    bench.promote("m1")
    bench.promote("m2")
    together = threading.Barrier(4, timeout=60)

    def attempt(_: int) -> str:
        together.wait()
        try:
            return bench.roll_back("m1").champion
        except BadInputError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(attempt, range(4)))
    assert answers == ["m1", *["m1 is the champion already"] * 3]
    assert len(read_log(bench.store).decisions) == 3


def test_a_decision_that_was_changed_or_removed_is_noticed(bench: Bench) -> None:
    bench.add(0.05)
    bench.promote("m1")
    bench.roll_back()
    folder = bench.store.root / "models/decisions"
    first = sorted(folder.iterdir())[0]
    good = first.read_text()
    first.write_text(good.replace('"promoted"', '"forced"'))
    with pytest.raises(WorkspaceError, match=r"000001\.json is not the decision that"):
        read_log(bench.store)
    first.write_text("{}")
    with pytest.raises(WorkspaceError, match=r"000001\.json is damaged"):
        read_log(bench.store)
    first.unlink()
    with pytest.raises(WorkspaceError, match="expected decision 1 of the log here"):
        bench.roll_back()
    first.write_text(good)
    assert len(read_log(bench.store).decisions) == 2


def test_a_champion_whose_record_names_other_weights_is_refused(bench: Bench) -> None:
    bench.add(0.05)
    bench.promote("m1")
    path = bench.store.root / "models/m1/version.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "sha256": "0" * 64}))
    with pytest.raises(WorkspaceError, match="names other weights than decision 1"):
        current_champion(bench.store)
    assert bench.roll_back(BUILT_IN).champion == BUILT_IN  # the way out


def test_a_built_in_champion_of_an_older_maskwheel_is_said(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add(0.05)
    bench.promote("m1")
    decision = bench.roll_back()
    (bench.store.root / "models/decisions/000002.json").unlink()
    assert record(bench.store, dataclasses.replace(decision, champion_sha256="0" * 64))
    with caplog.at_level(logging.WARNING):
        assert bench.champion == BUILT_IN
    assert "another one since Maskwheel was updated" in caplog.text


def test_a_fingerprint_follows_photos_masks_and_prompts(tmp_path: Path) -> None:
    data = CocoMasks.load(write_coco(tmp_path / "birds", 4))
    prompts = PromptConfig(max_clicks=1)
    same = fingerprint(data, prompts)
    assert same == fingerprint(CocoMasks.load(tmp_path / "birds/annotations.json"), prompts)
    fewer_masks = dataclasses.replace(data.images[0], masks=data.images[0].masks[:2])
    photo = tmp_path / "birds/images/000.jpg"
    others = {
        fingerprint(data, PromptConfig(max_clicks=2)),
        fingerprint(data.hold_out(2)[1], prompts),
        fingerprint(CocoMasks("birds", (fewer_masks, *data.images[1:])), prompts),
    }
    height, width = data.images[0].height, data.images[0].width
    photo.write_bytes(encode_jpeg(np.zeros((height, width, 3), dtype=np.uint8)))
    others.add(fingerprint(data, prompts))
    assert len(others | {same}) == 5


def test_two_real_models_on_real_photos_the_spoilt_one_is_refused_the_good_one_accepted(
    tmp_path: Path,
) -> None:
    data = CocoMasks.load(write_coco(tmp_path / "discs", 10))
    store = LocalStore(tmp_path / "workspace")
    spoilt = build_sam("bundled", device="cpu")
    random = np.random.default_rng(0)
    for tensor in spoilt.state_dict().values():
        if tensor.ndim > 1:
            tensor += float(tensor.std()) * tensor.new_tensor(random.normal(size=tensor.shape))

    def scorer(sam: Sam) -> tuple[Measured, ...]:
        return measure(sam, [data], PromptConfig(max_clicks=1))

    origin = ModelOrigin(kind="trained", parent=BUILT_IN)
    metrics = metrics_of(scorer(spoilt))
    register(store, spoilt, origin, metrics=metrics, now=NOW)

    def decide(name: str) -> PromotionDecision:
        config = GateConfig(min_images=10)
        return promote(store, name, scorer, config, by="ann", now=NOW, device="cpu")

    refused = decide("m1")
    assert refused.outcome == "refused"
    assert refused.rows[0].difference < -0.1
    assert not any("tampered" in reason for reason in refused.reasons)
    roll_back(store, "m1", by="ann", now=NOW)
    accepted = decide(BUILT_IN)
    assert (accepted.outcome, accepted.champion) == ("promoted", BUILT_IN)
    assert accepted.rows[0].difference == pytest.approx(-refused.rows[0].difference)
    assert find_version(store, "m1").metrics == metrics
