from __future__ import annotations

import heapq

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from model.reachability import FAR, ROUNDS, Terrain, _running_minimum, seeds_at

OPEN, WALL = -20.0, 20.0


def distances(logits_hw: Tensor, x: int, y: int) -> Tensor:
    terrain = Terrain.from_logits(logits_hw[None, None])
    height, width = logits_hw.shape
    seeds = seeds_at(torch.tensor([[[x, y]]]).float(), torch.ones(1, 1), (height, width))
    return terrain.distances(seeds, None)[0, 0]


def cheapest_paths(logits_hw: Tensor, x: int, y: int) -> NDArray[np.float64]:
    """Dijkstra: a step between neighbours costs half of either pixel."""
    cost = torch.nn.functional.softplus(logits_hw.double()).numpy() + 0.02
    best = np.full(cost.shape, np.inf)
    best[y, x] = 0
    queue = [(0.0, y, x)]
    while queue:
        so_far, r, c = heapq.heappop(queue)
        if so_far > best[r, c]:
            continue
        for nr, nc in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if 0 <= nr < cost.shape[0] and 0 <= nc < cost.shape[1]:
                total = so_far + (cost[r, c] + cost[nr, nc]) / 2
                if total < best[nr, nc]:
                    best[nr, nc] = total
                    heapq.heappush(queue, (total, nr, nc))
    capped: NDArray[np.float64] = np.minimum(best, FAR)
    return capped


def test_open_ground_costs_its_length_in_steps() -> None:
    found = distances(torch.full((8, 12), OPEN), 3, 2)
    y, x = torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij")
    torch.testing.assert_close(found, 0.02 * ((x - 3).abs() + (y - 2).abs()).float())


def test_a_closed_wall_keeps_a_click_inside() -> None:
    logits = torch.full((16, 16), OPEN)
    logits[4, 4:12] = logits[11, 4:12] = WALL
    logits[4:12, 4] = logits[4:12, 11] = WALL
    reach = distances(logits, 7, 7).neg().exp()
    assert (reach[5:11, 5:11] > 0.8).all()
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[4:12, 4:12] = False
    assert (reach[outside] < 1e-6).all()


def test_a_path_may_turn_twice_in_every_round() -> None:
    logits = torch.full((9, 9), WALL)
    logits[1, 1:8] = logits[1:8, 7] = logits[7, 3:8] = logits[4:8, 3] = OPEN  # three turns
    assert ROUNDS == 2
    reach = distances(logits, 1, 1).neg().exp()
    assert reach[4, 3] > 0.6


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_distances_are_those_of_real_paths_and_exact_along_the_seeds_lines(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (height, width)).astype(np.float32))
    x, y = int(rng.integers(width)), int(rng.integers(height))
    found, wanted = distances(logits, x, y).numpy(), cheapest_paths(logits, x, y)
    assert (found >= wanted - 1e-3).all()
    if height == 1 or width == 1:
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_each_prompt_walks_the_terrain_of_its_own_image() -> None:
    logits = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1))
    seeds = seeds_at(torch.tensor([[[1.0, 2.0]], [[5.0, 5.0]]]), torch.ones(2, 1), (6, 7))
    owner = torch.tensor([1, 0])
    together = Terrain.from_logits(logits).distances(seeds, owner)
    for n in range(2):
        own = Terrain.from_logits(logits[owner[n : n + 1]])
        torch.testing.assert_close(together[n : n + 1], own.distances(seeds[n : n + 1], None))


def test_a_seed_may_lie_outside_and_one_without_weight_is_none() -> None:
    points = torch.tensor([[[-5.0, 2.5], [3.0, 1.0]]])
    seeds = seeds_at(points, torch.tensor([[1.0, 0.0]]), (4, 5))
    wanted = torch.full((1, 4, 5), FAR)
    wanted[0, 2, 0] = 0
    assert torch.equal(seeds, wanted)


def test_costs_learn_from_what_was_reached() -> None:
    logits = torch.zeros(1, 1, 6, 6, requires_grad=True)
    seeds = seeds_at(torch.tensor([[[0.0, 0.0]]]), torch.ones(1, 1), (6, 6))
    Terrain.from_logits(logits).distances(seeds, None)[0, 0, 5, 5].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(logits.grad.sum()) == pytest.approx(0.5 * 10, rel=1e-4)


@settings(max_examples=30)
@given(
    st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([1, 2, 5, 8, 12, 24]), st.booleans()
)
def test_a_running_minimum_in_blocks_is_that_of_torch_bit_for_bit(
    seed: int, prompts: int, length: int, reverse: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(prompts, 2, length, 3, generator=generator)
    wanted = torch.cummin(x.flip(2) if reverse else x, 2).values
    wanted = wanted.flip(2) if reverse else wanted
    assert torch.equal(_running_minimum(x.clone(), reverse=reverse), wanted)


@pytest.mark.parametrize("owned", [False, True])
def test_a_lone_seeds_first_round_is_what_sweeping_gives(owned: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    terrain = Terrain.from_logits(torch.randn(2 if owned else 1, 2, 16, 24, generator=generator))
    points = torch.rand(7, 2, generator=generator) * torch.tensor([30.0, 20.0]) - 2
    weights = torch.tensor([1.0, 1, 0, 1, 1, 1, 1])
    owner = torch.tensor([1, 0, 1, 1, 0, 0, 1]) if owned else None
    seeds = seeds_at(points[:, None], weights[:, None], terrain.size)
    torch.testing.assert_close(
        terrain.distances_from_point(points, weights, owner),
        terrain.distances(seeds, owner),
        rtol=0,
        atol=2e-5,
    )


def test_a_lone_seed_teaches_costs_what_sweeping_teaches_them() -> None:
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randn(1, 2, 12, 16, generator=generator)
    point, weight = torch.tensor([[6.0, 5.0]]), torch.ones(1)
    logits = [drawn.clone().requires_grad_() for _ in range(2)]
    swept, direct = (Terrain.from_logits(given) for given in logits)
    swept.distances(
        seeds_at(point[:, None], weight[:, None], (12, 16)), None
    ).exp().sum().backward()  # type: ignore[no-untyped-call]
    direct.distances_from_point(point, weight, None).exp().sum().backward()  # type: ignore[no-untyped-call]
    assert logits[0].grad is not None
    assert logits[1].grad is not None
    torch.testing.assert_close(logits[0].grad, logits[1].grad, rtol=1e-3, atol=1e-3)
