"""Reading and editing: same numbers as the network computes, under every transformation of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.transforms import networks
from vexplain.transforms import edit, layers, read
from vexplain.transforms.activations import _checked_changes

SHAPE = (8, 13, 11, 3)


@pytest.fixture
def images(key):
    return jax.random.uniform(key, SHAPE)


@pytest.mark.parametrize("style", networks.ALL)
def test_reading_changes_no_bit_of_output_or_gradient(style, images):
    apply, variables = networks.ALL[style]()
    names = layers(apply, variables, images).names

    def score(fn):
        return jax.jit(jax.value_and_grad(lambda images: fn(variables, images)[..., 1].sum()))

    value, gradient = score(apply)(images)
    other, same = score(lambda v, x: read(apply, names)(v, x)[0])(images)
    assert value == other
    np.testing.assert_allclose(gradient, same, rtol=0, atol=1e-6 * np.abs(gradient).max())


def test_what_is_read_is_what_was_computed(images):
    apply, (kernel, bias, dense) = networks.plain_network()
    logits, found = read(apply, ["conv_1", "relu_1", "pool_1"])((kernel, bias, dense), images)
    conv = jax.lax.conv_general_dilated(
        images, kernel, (3, 2), ((2, 1), (0, 2)), dimension_numbers=networks.NHWC
    )
    np.testing.assert_array_equal(found["conv_1"], conv + bias)
    np.testing.assert_array_equal(found["relu_1"], np.maximum(conv + bias, 0))
    np.testing.assert_allclose(found["pool_1"] @ dense, logits, rtol=1e-5)


def test_edited_activations_go_on_through_the_network(images):
    apply, (kernel, bias, dense) = networks.plain_network()
    edited = edit(apply, {"relu_1": lambda a: a.at[..., 2].set(0), "dense_1": lambda a: -a})
    without = dense.at[2].set(0)
    np.testing.assert_allclose(
        edited((kernel, bias, dense), images), -apply((kernel, bias, without), images), rtol=1e-5, atol=1e-6
    )


def test_an_edit_can_be_read_and_differentiated(images):
    apply, variables = networks.nnx_network()
    doubled = edit(apply, {"relu_1": lambda a: 2 * a})
    plain, found = (jax.jit(read(fn, ["relu_1"]))(variables, images)[1] for fn in (apply, doubled))
    np.testing.assert_array_equal(found["relu_1"], plain["relu_1"])  # the layer's value, before its edit

    def through(fn):
        return jax.jit(jax.grad(lambda x: read(fn, ["relu_1"])(variables, x)[1]["relu_1"].sum()))(images)

    np.testing.assert_allclose(through(doubled), through(apply), rtol=1e-6)


def test_vmap_and_jit_and_eight_devices_agree(images):
    apply, variables = networks.nnx_network()
    reading = read(apply, ["relu_1", "add_1"])
    expected = jax.jit(reading)(variables, images)[1]
    single = jax.jit(jax.vmap(lambda image: reading(variables, image[None])[1]))(images)
    devices = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    sharded = jax.jit(reading)(variables, jax.device_put(images, devices))[1]
    for name in expected:
        np.testing.assert_allclose(single[name][:, 0], expected[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sharded[name], expected[name], rtol=1e-5, atol=1e-5)


def test_scan_and_remat_and_inner_jit_are_looked_into(images):
    @jax.checkpoint
    def block(x, w):
        return jax.jit(lambda x: jax.nn.relu(x * w - 0.2))(x), x.sum((1, 2))

    def apply(variables, images):
        x, sums = jax.lax.scan(block, images, variables, reverse=True)
        return x.mean((1, 2)) + sums.sum(0)

    weights = jnp.array([1.5, 0.7, 1.1])
    logits, found = jax.jit(read(apply, ["relu_1", "relu_3"]))(weights, images)
    x1 = np.maximum(np.asarray(images) * 1.1 - 0.2, 0)
    x3 = np.maximum(np.maximum(x1 * 0.7 - 0.2, 0) * 1.5 - 0.2, 0)
    np.testing.assert_allclose(found["relu_1"], x1, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["relu_3"], x3, rtol=1e-5, atol=1e-6)
    plain, cut = (jax.jit(fn)(weights, images) for fn in (apply, edit(apply, {"relu_3": jnp.zeros_like})))
    np.testing.assert_allclose(logits, plain, rtol=1e-5)
    np.testing.assert_allclose(cut, plain - x3.mean((1, 2)), rtol=1e-4, atol=1e-5)


@jax.custom_vjp
def straight_through(x):
    return jnp.round(jax.nn.relu(x - 0.5) * 4)


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (7 * g,))


def test_untouched_custom_derivatives_survive(images):
    def apply(variables, images):
        return straight_through(jnp.sin(images)).sum((1, 2)) * variables

    reading = read(apply, ["pool_1"])
    gradient = jax.grad(lambda x: reading(1.0, x)[0].sum())(images)
    np.testing.assert_allclose(gradient, 7 * jnp.cos(images), rtol=1e-6)
    assert jax.grad(lambda x: read(lambda v, x: jax.nn.relu(x), ["relu_1"])(0, x)[0].sum())(
        jnp.zeros((1, 1, 1, 1))
    ) == jnp.zeros((1, 1, 1, 1))


def test_a_layer_inside_a_custom_derivative_cannot_be_touched(images):
    def apply(variables, images):
        return straight_through(images).sum((1, 2))

    with pytest.raises(ValueError, match=r"cannot read layer 'relu_1': it is inside a custom_vjp"):
        read(apply, ["relu_1"])(None, images)
    with pytest.raises(ValueError, match=r"cannot edit layer 'relu_1': it is inside a custom_vjp"):
        edit(apply, {"relu_1": jnp.zeros_like})(None, images)


def test_a_layer_inside_a_branch_cannot_be_read(images):
    def apply(variables, images):
        return jax.lax.cond(variables, jax.nn.relu, jnp.negative, images).sum((1, 2))

    with pytest.raises(ValueError, match="inside a cond"):
        read(apply, ["relu_1"])(True, images)


def test_bad_names_and_shapes_raise(images):
    apply, variables = networks.plain_network()
    with pytest.raises(KeyError, match=r"no layer 'relu1'; nearest|no layer 'relu1' in"):
        read(apply, ["relu1"])(variables, images)
    with pytest.raises(TypeError, match=r"pass a list of layer names, \['relu_1'\]"):
        read(apply, "relu_1")
    with pytest.raises(ValueError, match=r"change of layer 'relu_1' returned shape \(8, 5\)"):
        edit(apply, {"relu_1": lambda a: a[:, :, 0, 0]})(variables, images)
    with pytest.raises(TypeError, match=r"changes\['relu_1'\] is 0.0: expected a function"):
        _checked_changes({"relu_1": 0.0})  # before it, beartype refuses `edit(apply, {"relu_1": 0.0})`
    with pytest.raises(TypeError, match=r"changes\['relu_1'\] returned a tuple: expected one array of shape"):
        edit(apply, {"relu_1": lambda a: (a, a)})(variables, images)


def test_a_network_may_return_more_than_logits(images):
    apply, variables = networks.plain_network()
    both = lambda v, x: (apply(v, x), {"mean": x.mean()})  # noqa: E731
    (logits, state), found = read(both, ["relu_1"])(variables, images)
    np.testing.assert_allclose(logits, apply(variables, images), rtol=1e-5)
    assert set(state) == {"mean"}
    assert set(found) == {"relu_1"}


def test_a_second_call_does_not_trace_again(images):
    apply, variables = networks.plain_network()
    traces = []

    def counted(variables, images):
        traces.append(1)
        return apply(variables, images)

    reading = jax.jit(read(counted, ["relu_1"]))
    reading(variables, images)
    once = len(traces)
    reading(variables, images + 1)
    assert len(traces) == once
