"""A sheet of maps: what stands where, and what is refused."""

import numpy as np
import pytest

from experiments.map_sheets import map_sheet
from tests.figures import material
from vexplain.figures import png_bytes


def test_cells_stand_in_the_column_of_their_name():
    figure = map_sheet({"a": {"x": np.eye(3), "y": np.ones((3, 3))}, "b": {"y": np.zeros((3, 3))}})
    (_, y_of_a, y_of_b) = (tile.get_window_extent() for tile in material.tiles(figure))
    assert y_of_a.x0 == y_of_b.x0
    assert y_of_a.y0 > y_of_b.y1
    assert png_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("cell", "message"),
    [(np.zeros(3), r"'a, x' has shape \(3,\)"), (np.full((2, 2), np.nan), "'a, x' goes from nan")],
)
def test_cells_that_are_no_maps(cell, message):
    with pytest.raises(ValueError, match=message):
        map_sheet({"a": {"x": cell}})


def test_no_rows():
    with pytest.raises(ValueError, match="rows is empty"):
        map_sheet({})
