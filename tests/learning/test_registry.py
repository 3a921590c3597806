"""Model versions: what comes in comes out, unchanged, under a name that never moves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.automatic.shard_worker import ModelSpec, cached_model
from engine.errors import BadInputError, WorkspaceError
from engine.learning.registry import (
    BUILT_IN,
    built_in_version,
    find_version,
    import_checkpoint,
    list_versions,
    load_model,
    register,
)
from engine.objects import LocalStore
from engine.records import ModelMetric, ModelOrigin
from model import SIZES, RecommendedThresholds, Sam, build_sam, load_sam, save_sam
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, small_sam

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
TRAINED = ModelOrigin(
    kind="trained", parent=BUILT_IN, trained_on=("r1",), recipe="sam", recipe_json='{"steps":3}'
)
METRIC = ModelMetric(row="birds, 1 click", fingerprint="0123456789abcdef", mean_iou=0.5)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "workspace")


def thresholds(value: float) -> Sam:
    recommended = RecommendedThresholds(pred_iou_thresh=value)
    return small_sam(dataclasses.replace(SMALL_COMPACT, recommended=recommended))


def test_a_registered_model_comes_back_with_its_thresholds_and_its_history(
    store: LocalStore,
) -> None:
    sam = thresholds(0.61)
    version = register(store, sam, TRAINED, metrics=[METRIC], now=NOW)
    assert version == find_version(store, "m1") == find_version(store, sam.model_id())
    assert (version.origin, version.metrics, version.created_at) == (TRAINED, (METRIC,), NOW)
    assert json.loads(version.config_json)["recommended"]["pred_iou_thresh"] == 0.61
    loaded = load_model(store, version, "cpu")
    assert loaded.model_id() == sam.model_id() == version.model_id
    assert loaded.config == sam.config


def test_the_weights_are_an_object_of_their_own_that_any_tool_opens(
    store: LocalStore, tmp_path: Path
) -> None:
    version = register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    data = store.get("models/m1/weights.safetensors")
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (version.sha256, version.size_bytes)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(data)
    assert load_sam(copy, device="cpu").model_id() == version.model_id


def test_versions_are_numbered_and_the_built_in_model_is_the_first(store: LocalStore) -> None:
    for seed in range(11):
        register(store, small_sam(SMALL_COMPACT, seed), TRAINED, now=NOW)
    assert [v.name for v in list_versions(store)] == [BUILT_IN, *(f"m{n}" for n in range(1, 12))]
    assert find_version(store, BUILT_IN) == built_in_version()
    assert load_model(store, built_in_version(), "cpu").model_id() == built_in_version().model_id
    assert built_in_version().model_id == build_sam(device="cpu").model_id()


def test_half_precision_is_kept_in_the_file_and_named_as_it_is_loaded(store: LocalStore) -> None:
    whole = register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    half = register(store, small_sam(SMALL_COMPACT).half(), TRAINED, now=NOW)
    assert half.size_bytes < 0.6 * whole.size_bytes
    assert load_model(store, half, "cpu").model_id() == half.model_id


def test_registering_the_same_training_again_gives_the_same_version(store: LocalStore) -> None:
    sam = small_sam(SMALL_COMPACT)
    first = register(store, sam, TRAINED, now=NOW)
    assert register(store, sam, TRAINED, now=datetime.now(UTC)) == first
    other = register(store, sam, dataclasses.replace(TRAINED, trained_on=("r2",)), now=NOW)
    assert other.name == "m2"


def test_a_parent_that_nobody_knows_is_refused(store: LocalStore) -> None:
    with pytest.raises(BadInputError, match="parent 'm7'; expected one of bundled"):
        register(store, small_sam(SMALL_COMPACT), ModelOrigin(kind="trained", parent="m7"), now=NOW)
    assert list(store.list("")) == []


def test_a_model_that_is_not_there_is_refused_with_those_that_are(store: LocalStore) -> None:
    register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    with pytest.raises(BadInputError, match="unknown model 'm2'; the workspace has bundled, m1"):
        find_version(store, "m2")


def test_weights_that_were_changed_are_refused(store: LocalStore) -> None:
    version = register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    path = store.root / "models/m1/weights.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(WorkspaceError, match=r"m1/weights\.safetensors is not what was registered"):
        load_model(store, version)
    save_sam(small_sam(SMALL_COMPACT, seed=1), path)
    with pytest.raises(WorkspaceError, match="tampered with or damaged"):
        load_model(store, version)
    path.unlink()
    with pytest.raises(WorkspaceError, match="missing"):
        load_model(store, version)


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"name": "m1", "size_bytes": "many"}'])
def test_a_damaged_record_is_named(store: LocalStore, damage: str) -> None:
    register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    (store.root / "models/m1/version.json").write_text(damage)
    with pytest.raises(WorkspaceError, match=r"models/m1/version\.json is damaged"):
        list_versions(store)


def test_a_record_under_another_name_is_refused(store: LocalStore) -> None:
    register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    store.put_if_absent("models/m2/version.json", store.get("models/m1/version.json"))
    with pytest.raises(WorkspaceError, match="it is the record of 'm1'"):
        list_versions(store)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_instant_leaves_nothing_half_visible_and_the_repeated_call_heals_it(
    tmp_path: Path, step: int
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "tests.learning.registry_crashes",
            tmp_path,
            f"{step}",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) >= 5
    assert {tuple(killed) for _, killed, _ in found} == {(BUILT_IN,), (BUILT_IN, "m1")}
    assert all(healed == [BUILT_IN, "m1"] for _, _, healed in found), found
    for number, *_ in found:
        store = LocalStore(tmp_path / str(number))
        assert load_model(store, find_version(store, "m1"), "cpu").config == SMALL_COMPACT
        assert list(store.list("models/")) == [
            "models/m1/version.json",
            "models/m1/weights.safetensors",
        ]


def test_weights_of_a_killed_writer_are_never_given_to_another_model(store: LocalStore) -> None:
    store.put_if_absent("models/m1/weights.safetensors", b"of a writer that was killed")
    version = register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    assert version.name == "m2"
    assert [v.name for v in list_versions(store)] == [BUILT_IN, "m2"]
    load_model(store, version)


def test_models_registered_at_once_get_names_of_their_own(store: LocalStore) -> None:
    models = [small_sam(SMALL_COMPACT, seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda sam: register(store, sam, TRAINED, now=NOW), models))
    assert len({v.name for v in versions}) == 6
    assert [load_model(store, v, "cpu").model_id() for v in versions] == [
        sam.model_id() for sam in models
    ]


def test_one_model_registered_at_once_by_many_is_one_version(store: LocalStore) -> None:
    sam = small_sam(SMALL_COMPACT)
    with ThreadPoolExecutor(6) as pool:
        versions = set(pool.map(lambda _: register(store, sam, TRAINED, now=NOW), range(6)))
    assert len(versions) == 1
    assert [v.name for v in list_versions(store)] == [BUILT_IN, "m1"]


def test_an_official_checkpoint_is_imported(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "vit_b", SMALL_VIT)  # the true key layout, without its 375 MB
    sam = small_sam(SMALL_VIT)
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(sam.state_dict(), path)
    version = import_checkpoint(store, path, now=NOW)
    assert version.origin == ModelOrigin(kind="imported", source="sam_vit_b_01ec64.pth")
    assert load_model(store, version, "cpu").model_id() == sam.model_id() == version.model_id
    weights = tmp_path / "official.safetensors"
    save_file(sam.state_dict(), weights)
    again = import_checkpoint(store, weights, now=NOW)
    assert (again.name, again.model_id) == ("m2", version.model_id)


def test_our_own_file_is_imported_byte_for_byte(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_sam(small_sam(SMALL_COMPACT).half(), path)
    version = import_checkpoint(store, path, now=NOW)
    assert store.get("models/m1/weights.safetensors") == path.read_bytes()
    assert version.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_is_no_checkpoint_is_refused_and_leaves_nothing(
    store: LocalStore, tmp_path: Path
) -> None:
    for name in ("photo.pth", "photo.safetensors"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0 a photo")
        with pytest.raises(BadInputError, match=f"{name} cannot be imported"):
            import_checkpoint(store, tmp_path / name, now=NOW)
    with pytest.raises(BadInputError, match="no such file"):
        import_checkpoint(store, tmp_path / "nowhere.pth", now=NOW)
    assert list(store.list("")) == []


def test_workers_find_registered_models_by_name_and_by_id(store: LocalStore) -> None:
    version = register(store, small_sam(SMALL_COMPACT), TRAINED, now=NOW)
    for name in ("m1", version.model_id):
        sam = cached_model(ModelSpec(name, "cpu", workspace=str(store.root)))
        assert sam.model_id() == version.model_id
    with pytest.raises(BadInputError, match="unknown model 'm2'"):
        cached_model(ModelSpec("m2", "cpu", workspace=str(store.root)))
    with pytest.raises(BadInputError, match="unknown model 'm1'"):
        cached_model(ModelSpec("m1", "cpu"))
