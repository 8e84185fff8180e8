"""A loop stays a loop: readings leave it as rows of a stacked output, rules are the same at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.transforms import GUIDED, edit, layers, read, with_rules

SHAPE = (2, 4, 5, 3)


def network(weights, images):
    step = lambda x, w: (jax.nn.relu(x @ w) + x, x.sum((1, 2)))  # noqa: E731
    x, sums = jax.lax.scan(step, images, weights)
    return x.mean((1, 2)) + sums.sum(0)


def weights(n):
    return jax.random.normal(jax.random.key(0), (n, 3, 3)) / 3


def test_a_step_is_read_edited_and_ruled_as_in_the_loop_written_out(key):
    images, w = jax.random.normal(key, SHAPE), weights(5)

    def written_out(w, images, change=lambda a: a):
        x, out = images, 0
        for t in range(5):
            out = out + x.sum((1, 2))
            bent = jax.nn.relu(x @ w[t])
            x = (change(bent) if t == 2 else bent) + x
        return x.mean((1, 2)) + out

    found = jax.jit(read(network, ["relu_3", "relu_5"]))(w, images)
    plain = jax.jit(read(written_out, ["relu_3", "relu_5"]))(w, images)
    for name in ("relu_3", "relu_5"):
        np.testing.assert_allclose(found[1][name], plain[1][name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[0], jax.jit(network)(w, images))
    edited = edit(network, {"relu_3": lambda a: 2 * a})(w, images)
    expected = written_out(w, images, lambda a: 2 * a)
    np.testing.assert_allclose(edited, expected, rtol=1e-4, atol=1e-5)

    def guided(fn):
        return jax.grad(lambda x: with_rules(fn, GUIDED)(w, x).sum())(images)

    np.testing.assert_allclose(guided(network), guided(written_out), rtol=1e-4, atol=1e-5)


def test_a_program_that_reads_a_step_does_not_grow_with_the_steps():
    images = jnp.ones(SHAPE)

    def size(n):
        reading = read(network, [f"relu_{n}"])
        return len(str(jax.make_jaxpr(reading)(weights(n), images)))

    assert size(40) < 1.2 * size(4)


def test_what_is_a_relu_at_the_first_step_only_is_none():
    """The carry begins as zeros, so that the first step is max(x, 0): a maximum with what is carried."""

    def apply(v, im):
        step = lambda carry, w: (jnp.maximum(im * w, carry), None)  # noqa: E731
        return -jax.lax.scan(step, jnp.zeros_like(im), v)[0].mean((1, 2))

    v, images = jnp.array([1, 0.5, 2]), jax.random.normal(jax.random.key(0), (1, 2, 2, 1))
    with pytest.raises(ValueError, match="GUIDED says nothing of"):
        with_rules(apply, GUIDED)(v, images)
    ruled = with_rules(apply, GUIDED, on_uncovered="gradient", on_unmatched="ignore")
    gradient = jax.grad(lambda x: ruled(v, x).sum())(images)
    np.testing.assert_array_equal(gradient.ravel(), [-0.5, -0.5, 0, 0])


def test_a_network_is_traced_once_whoever_asks(key):
    images, traces = jax.random.normal(key, SHAPE), []

    def counted(w, images):
        traces.append(1)
        return network(w, images)

    w = weights(2)
    name = layers(counted, w, images).names[0]
    read(counted, [name])(w, images)
    edit(counted, {name: jnp.zeros_like})(w, images)
    jax.grad(lambda x: with_rules(counted, GUIDED)(w, x).sum())(images)
    jax.jit(read(counted, [name]))(w, images + 1)
    assert len(traces) == 1
