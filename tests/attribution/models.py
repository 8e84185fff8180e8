"""The constant-weight models of Captum's tests in pure JAX; they flatten as PyTorch does, channels first."""

import jax
import jax.numpy as jnp


def one_conv(dtype=jnp.float64):
    """Model A: convolution of ones, ReLU, five +1 and three -1, ReLU."""
    ones = jnp.ones((3, 3, 1, 2), dtype)
    signs = jnp.tile(jnp.array([1, 1, 1, 1, 1, -1, -1, -1], dtype)[:, None], (1, 4))
    return _one_conv, (ones, signs)


def _one_conv(variables, images):
    kernel, dense = variables
    x = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x + jnp.array([-50, -75], images.dtype))
    return jax.nn.relu(jnp.moveaxis(x, -1, 1).reshape(len(x), 8) @ dense)


def multi_layer(dtype=jnp.float64):
    """Model B, for images of three numbers in any arrangement: identity, 3 → 4, ReLU, 4 → 2."""
    return _multi_layer, (
        jnp.eye(3, dtype=dtype).reshape(1, 1, 3, 3),
        jnp.ones((3, 4), dtype),
        jnp.ones((4, 2), dtype),
    )


def _multi_layer(variables, images):
    identity, first, second = variables
    x = jax.lax.conv_general_dilated(  # the identity layer at one position, so that Grad-CAM has one
        images.reshape(len(images), 1, 1, 3),
        identity,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jax.nn.relu(x.reshape(len(x), 3) @ first + jnp.array([-10, 1, 1, 1], images.dtype))
    return x @ second + jnp.array([-1, 1], images.dtype)
