"""A translation that hides its input in faint digits is told from one that shows what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.translation import cycle_error, hidden_channel_errors, hidden_channel_ratios

STEP = 1 / 64  # what is hidden has less than this


def hide(images):
    """Gray, with the image in its lowest digits."""
    return 0.5 + STEP * images


def unhide(outputs):
    return jnp.clip((outputs - 0.5) / STEP, 0, 1)


def show(images):
    return 1 - images


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).random((3, 9, 13, 3), np.float32))


def test_cycle_error_by_hand(images):
    cycled = images.at[1].add(0.25).at[2, :, :, 0].add(-0.3)
    np.testing.assert_allclose(cycle_error(images, cycled), [0, 0.25, 0.1], atol=1e-6)


def test_names_and_closed_forms(key, images):
    errors = hidden_channel_errors(key, show, show, images)
    noise = ["noise 1/255", "noise 2/255", "noise 4/255", "noise 8/255"]
    assert list(errors) == ["clean", *noise, "8-bit rounding", "blur 0.5 px"]
    assert all(error.shape == (3,) for error in errors.values())
    np.testing.assert_allclose(errors["clean"], 0, atol=1e-6)
    np.testing.assert_allclose(errors["8-bit rounding"], 0.25 / 255, rtol=0.15)
    np.testing.assert_allclose(errors["noise 1/255"], (2 / np.pi) ** 0.5 / 255, rtol=0.15)
    np.testing.assert_allclose(errors["noise 8/255"], 8 * errors["noise 1/255"], rtol=0.2)


def test_the_hidden_channel_is_found(key, images):
    hidden = hidden_channel_ratios(hidden_channel_errors(key, hide, unhide, images))
    shown = hidden_channel_ratios(hidden_channel_errors(key, show, show, images))
    assert "clean" not in hidden
    assert all((hidden[name] > 5 * shown[name]).all() for name in hidden if name.startswith("noise"))


def test_options_and_jit(key, images):
    errors = hidden_channel_errors(key, show, show, images, sigmas=(0.1,), blur_sigma=1.0)
    assert list(errors) == ["clean", "noise 25.5/255", "8-bit rounding", "blur 1 px"]
    assert "noise 0.1/255" not in hidden_channel_errors(key, show, show, images, sigmas=())
    jitted = jax.jit(lambda k, x: hidden_channel_errors(k, show, show, x, sigmas=(0.1,), blur_sigma=1.0))
    for name, error in jitted(key, images).items():
        np.testing.assert_allclose(error, errors[name], atol=1e-6)
