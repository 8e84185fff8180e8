"""A folder of images, and all that `vexplain explain` leaves of it."""

import numpy as np
import pytest
from PIL import Image

from tests.command.runs import COLORS, call


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of class folders, whose classes are colors: two images of each, and a broken one."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir()
        for n in range(2):
            pixels = rng.uniform(0, 0.3, (20, 24, 3))
            pixels[4:14, 3 * n : 3 * n + 12] += 0.6 * np.array(color)
            Image.fromarray((255 * pixels).astype(np.uint8)).save(root / name / f"{n}.png")
    (root / "red" / "broken.jpg").write_bytes(b"no image")
    (root / "classes.txt").write_text("red\ngreen\nblue\nnever\n")
    return root


@pytest.fixture(scope="session")
def explained(images, tmp_path_factory):
    """Not to be changed: a test that does has a copy."""
    out = tmp_path_factory.mktemp("results")
    assert call("explain", images, out) == 0
    return out
