"""The simulation of a large data set, run small: it says what it claims to measure."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.bench_scale import State, plan_of_a_run, rows_for_one_shard, simulate


def test_a_small_simulation_grows_as_a_data_set_does(tmp_path: Path) -> None:
    shown: list[State] = []
    states = simulate(tmp_path, 1600, 100, 50, 400, shown.append)
    assert states == shown
    assert [state.releases for state in states] == [1, 2, 4]
    assert [state.images for state in states] == [400, 800, 1600]
    assert [state.files for state in states] == [8, 16, 32]
    assert sum(len(state.publish_seconds) for state in states) == 4
    # Runs take neighbouring ids, so that statistics lead to the one file that may hold an image.
    assert all(state.found_files == 1 for state in states)
    sizes = [(state.table_bytes, state.manifest_bytes, state.disk_bytes) for state in states]
    assert sizes == sorted(sizes)
    assert 200 < states[-1].manifest_bytes / states[-1].files < 1500


def test_a_workers_share_of_the_tables_is_measured_both_ways(tmp_path: Path) -> None:
    seconds = rows_for_one_shard(tmp_path, 1, 1600)
    assert set(seconds) == {"order of ingestion", "by id"}
    size_bytes, _ = plan_of_a_run(tmp_path / "plan", 1000)
    assert 15_000 < size_bytes < 25_000
