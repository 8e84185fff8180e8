"""The map and mask on which Quantus 0.6.0 was run; the tests compare with the values that it gave."""

import jax.numpy as jnp

ATTRIBUTIONS = jnp.array(
    [[[0.1, -0.2, 0.3, 0], [0.5, 0.9, -0.4, 0.2], [0.7, 1, 0.6, -0.1], [0, 0.05, -0.3, 0.15]]]
)
MASKS = jnp.zeros((1, 4, 4)).at[:, 1:3, :2].set(1.0)
CANCELING = ATTRIBUTIONS.at[:, 0].set(-0.8).at[:, 3].set(0.0)
