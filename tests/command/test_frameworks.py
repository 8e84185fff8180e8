"""What a function of the user returns: a network of each library, as (apply, variables)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.command import networks
from tests.command.runs import HERE
from vexplain.command.model import load_model


def expected(name, made, images):
    """By the library's own call, at test time."""
    if name == "module":
        return made(images)
    if name == "keras_model":
        return made(np.asarray(images), training=False)
    if name == "equinox_model":
        import equinox as eqx

        return jnp.stack([eqx.nn.inference_mode(made[0])(i.transpose(2, 0, 1)) for i in images])
    if name == "linen_module":
        return made[0].apply(made[1], images, train=False)
    if name == "haiku_function":
        return made[0].apply(made[1], None, images)
    return made[0].apply(*made[1], None, images)[0]


@pytest.mark.parametrize(
    "name",
    ["module", "linen_module", "equinox_model", "haiku_function", "haiku_with_state", "keras_model"],
)
def test_a_network_of_each_library(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    made = []
    function = getattr(networks, name)
    monkeypatch.setattr(networks, name, lambda weights: made.append(function(weights)) or made[0])
    model = load_model(f"{HERE}:{name}", size=16 if name == "module" else None)
    assert model.resizing.size == 16
    assert model.num_classes == 4
    assert jax.tree.leaves(model.variables), "weights are arguments, no constants"
    images = jax.random.uniform(jax.random.key(5), (2, 16, 16, 3))
    run = jax.jit(model.apply)
    found = run(model.variables, images)
    np.testing.assert_allclose(found, expected(name, made[0], images), rtol=1e-4, atol=1e-6)
    scaled = run(jax.tree.map(lambda leaf: 2 * np.asarray(leaf), model.variables), images)
    assert np.abs(np.asarray(scaled) - np.asarray(found)).max() > 1e-3


def test_a_haiku_function_without_its_parameters_is_refused(monkeypatch):
    made = networks.haiku_function(None)[0]
    monkeypatch.setattr(networks, "haiku_function", lambda weights: made)
    with pytest.raises(ValueError, match=r"returned a Transformed: expected .*Haiku"):
        load_model(f"{HERE}:haiku_function", size=16)
