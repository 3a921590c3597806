"""Crop layers: worked by hand, and that they cover the image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.automatic.crops import layered_crops
from engine.automatic.point_grid import layer_point_grids, point_grid


def test_four_crops_of_a_known_image() -> None:
    crops = layered_crops(1000, 1500, 1, 512 / 1500)
    # overlap int(341.33) = 341; lengths ceil((341 + L) / 2): 921 x 671
    assert [(c.x0, c.y0, c.x1, c.y1) for c in crops] == [
        (0, 0, 1500, 1000),
        (0, 0, 921, 671),
        (0, 330, 921, 1000),
        (580, 0, 1500, 671),
        (580, 330, 1500, 1000),
    ]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 3))
def test_every_layer_covers_the_image_and_stays_inside(
    height: int, width: int, layers: int
) -> None:
    crops = layered_crops(height, width, layers, 512 / 1500)
    for layer in range(layers + 1):
        covered = np.zeros((height, width), dtype=bool)
        for crop in crops:
            assert 0 <= crop.x0 < crop.x1 <= width
            assert 0 <= crop.y0 < crop.y1 <= height
            if crop.layer == layer:
                covered[crop.y0 : crop.y1, crop.x0 : crop.x1] = True
        assert covered.all()


def test_points_lie_half_a_step_from_the_border_x_fastest() -> None:
    np.testing.assert_allclose(
        point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    )


def test_deeper_layers_have_fewer_points_down_to_none() -> None:
    assert [len(grid) for grid in layer_point_grids(4, 3, 2)] == [16, 4, 1, 0]
