"""What is asked of images: every NaN is found, wherever it is."""

import jax.numpy as jnp
import pytest

from vexplain._checks import check_images


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (2, 11, 5, 1), (3, 20, 16, 2)])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_one_bad_pixel_is_found(place, value):
    """The minimum and maximum that XLA computes on a CPU can skip it."""
    images = jnp.full((4, 21, 17, 3), 0.5)
    check_images(images)
    with pytest.raises(ValueError, match="NaN or infinite"):
        check_images(images.at[place].set(value))
