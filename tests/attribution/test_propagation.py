"""LRP and DeepLIFT against values by hand, explicit matrices, Zennit 0.5.1, Captum 0.9.0 and identities.

Everything is in float64, within a caller's jit, where images of any range are explained.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.references.propagation_weights import MEAN, SCALE, drawn
from tests.transforms import networks
from vexplain import transforms as t
from vexplain.attribution import deeplift, lrp, propagate

REFERENCES = Path(__file__).parent.parent / "references" / "propagation.npz"
COMPOSITES = {
    "epsilon": t.lrp_epsilon(0.01),
    "gamma": t.lrp_gamma(0.5),
    "epsilon_plus_flat": t.epsilon_plus_flat(),
    "epsilon_gamma_box": t.epsilon_gamma_box(),
    "epsilon_alpha2_beta1": t.epsilon_alpha2_beta1(),
    "epsilon_alpha2_beta1_flat": t.epsilon_alpha2_beta1_flat(),
}
LRP_0 = t.lrp_epsilon(0.0)
WHOLE = lambda outputs, targets: outputs.reshape(len(outputs), -1).sum(1)  # noqa: E731
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def run(fn, *args):
    """The values of a computation that is compiled as a whole."""
    return jax.tree.map(np.asarray, jax.jit(fn)(*args))


# ------------------------------------------------------------------------------------ values by hand


def two_layers(weights, images):
    """Model C of Captum's tests: 3 → 3, ReLU, 3 → 1 (here twice)."""
    first, second = weights
    return jax.nn.relu(images.reshape(len(images), 3) @ first) @ second


FIRST = lambda layer: layer.is_first  # noqa: E731
LATER = lambda layer: not layer.is_first  # noqa: E731


@pytest.mark.parametrize(
    ("composite", "is_negative", "expected"),
    [
        pytest.param(LRP_0, False, (18, 36, 54), id="case 23"),
        pytest.param(t.lrp_z_plus(), True, (12, 33.6, 50.4), id="case 25"),
        pytest.param(
            t.lrp_gamma(1.0).where(FIRST) | t.lrp_gamma(0.25).where(LATER),
            True,
            (28 / 3, 104 / 3, 52),
            id="gamma 1 then 1/4",
        ),
        pytest.param(t.lrp_flat() | LRP_0.where(LATER), True, (32, 32, 32), id="flat"),
        pytest.param(t.lrp_w_squared() | LRP_0.where(LATER), True, (32, 32, 32), id="w squared"),
    ],
)
def test_lrp_by_hand(composite, is_negative, expected):
    first = np.full((3, 3), 2.0)
    first[0, 0] = -2 if is_negative else 2
    weights, images = (first, np.full((3, 2), 3.0)), np.array([1.0, 2, 3]).reshape(1, 1, 1, 3)
    found = run(lambda v, x: lrp(two_layers, v, x, 0, composite=composite), weights, images)
    np.testing.assert_allclose(found.ravel(), expected, **EXACT)


def test_deeplift_by_hand_case_22():
    apply = lambda v, x: 2 * jax.nn.relu(x[:, 0, 0]) + 2 * jax.nn.relu(x[:, 0, 1] - 1.5)  # noqa: E731
    found = run(lambda x: deeplift(apply, None, x, score=WHOLE), np.array([1.0, 2]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(found.ravel(), (2, 1))


# ------------------------------------------------------------- one linear layer, by explicit matrices


def one_layer(weights, images):
    """Pixels normalized by scales of both signs, padding, a convolution, and a folded normalization."""
    pixels = jnp.pad((images - 0.3) / jnp.array([0.5, -0.25]), ((0, 0), (1, 0), (0, 2), (0, 0)))
    x = jax.lax.conv_general_dilated(
        pixels, weights["kernel"], (2, 1), "VALID", dimension_numbers=networks.NHWC
    )
    return (x + weights["bias"] - weights["mean"]) * weights["gain"] + 0.1


def shares(rule, u, w, b, low, high):
    """(outputs, inputs) of the shares R_i / R_j, by the papers' equations; w is (outputs, inputs)."""
    up, down = lambda a: np.maximum(a, 0), lambda a: np.minimum(a, 0)
    z, total = w * u, (w * u).sum(1, keepdims=True) + b[:, None]
    bias = b[:, None]
    if rule == "gamma":
        favored = np.where(total > 0, up(z), down(z))
        bias = bias + 0.7 * np.where(total > 0, up(bias), down(bias))
        return (z + 0.7 * favored) / ((z + 0.7 * favored).sum(1, keepdims=True) + bias)
    if rule == "alpha beta":
        above, below = up(z), down(z)
        return 2 * over(above, above.sum(1) + up(b)) - over(below, below.sum(1) + down(b))
    if rule == "z plus":
        return over(up(z), up(z).sum(1) + up(b))
    if rule == "box":
        z = w * u - up(w) * low - down(w) * high
    elif rule == "w squared":
        z = w**2
    elif rule == "flat":
        z = (w != 0).astype(float)
    else:
        return z / (total + 0.3 * np.where(total < 0, -1, 1))
    return over(z, z.sum(1))


def over(a, totals):
    """Rows over their totals; nothing is shared out where there is nothing to share by."""
    return np.divide(a, totals[:, None], out=np.zeros_like(a), where=totals[:, None] != 0)


RULES = {
    "epsilon": t.lrp_epsilon(0.3),
    "gamma": t.lrp_gamma(0.7),
    "alpha beta": t.lrp_alpha_beta(2.0, 1.0),
    "z plus": t.lrp_z_plus(),
    "box": t.lrp_box(-1.0, 2.0),
    "w squared": t.lrp_w_squared(),
    "flat": t.lrp_flat(),
}


@pytest.fixture(scope="module")
def explicit_layer():
    """The weights of one layer as a matrix of what is padded, and maps of all rules from one program."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        weights = {
            "kernel": rng.normal(size=(3, 2, 2, 3)),
            "bias": rng.normal(size=3),
            "mean": rng.normal(size=3),
            "gain": np.array([0.5, -1.5, 2.0]),
        }
        images, slopes = rng.uniform(-1, 2, (2, 5, 4, 2)), rng.normal(size=(2, 2, 5, 3))
        score = lambda y, slopes: (y * slopes).sum((1, 2, 3))  # noqa: E731

        def everything(v, x, slopes):
            maps = {
                name: lrp(one_layer, v, x, slopes, score=score, composite=rule)
                for name, rule in RULES.items()
            }
            flat = lambda p: one_layer(v, p.reshape(1, 5, 4, 2)).reshape(-1)  # noqa: E731
            zeros = jnp.zeros(40)
            return maps, jax.jacobian(flat)(zeros), flat(zeros), one_layer(v, x)

        maps, matrix, bias, outputs = run(everything, weights, images, slopes)
        return maps, matrix, bias, outputs * slopes, images


@pytest.mark.parametrize("rule", RULES)
def test_rules_of_one_linear_layer_against_explicit_matrices(rule, explicit_layer):
    maps, matrix, bias, given, images = explicit_layer
    for n in range(2):
        u = images[n].reshape(-1)
        w, b, low, high = matrix, bias, -1.0, 2.0
        if rule in ("gamma", "alpha beta", "z plus", "w squared"):
            # These are of the numbers that enter the convolution: pixels less 0.3, over 0.5 and -0.25.
            scale = np.tile([2.0, -4.0], 20)
            u, w, b = (u - 0.3) * scale, matrix / scale, bias + 0.3 * matrix.sum(1)
        expected = given[n].reshape(-1) @ shares(rule, u, w, b, low, high)
        if rule in ("gamma", "alpha beta", "z plus"):  # the constant 0.3 is a bias, and has its share
            expected *= images[n].reshape(-1) / (images[n].reshape(-1) - 0.3)
        np.testing.assert_allclose(maps[rule][n].reshape(-1), expected, rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------------------ other libraries' maps


def reference_network(v, images, *, is_normalized=False, pool="max"):
    x = images if is_normalized else (images - MEAN) / SCALE
    conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=networks.NHWC)
    x = conv(x, v["conv"], (2, 2), ((1, 1), (1, 1))) + v["bias"]
    x = (x - v["norm_mean"]) / jnp.sqrt(v["norm_variance"] + 1e-5) * v["norm_scale"] + v["norm_shift"]
    x, window = jax.nn.relu(x), ((1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    if pool == "max":
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)
    else:
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, *window) / 4
    x = jax.nn.relu(conv(x, v["second"], (1, 1), "VALID") + v["second_bias"])
    return x.mean((1, 2)) @ v["dense"] + v["dense_bias"]


@pytest.fixture(scope="module")
def references():
    with np.load(REFERENCES) as file:
        return dict(file)


def test_composites_are_those_of_zennit(references):
    """Its pixels are normalized outside; flat and the box, which return attributions, see them inside."""
    weights, targets = drawn(), references["targets"]
    normalized = functools.partial(reference_network, is_normalized=True)

    def maps(v, x):
        found = {}
        for name, composite in COMPOSITES.items():
            apply = reference_network if "flat" in name or "box" in name else normalized
            given = x if apply is reference_network else (x - MEAN) / SCALE
            found[name] = propagate(apply, v, given, targets, composite=composite)
        return found, reference_network(v, x)

    found, logits = run(maps, weights, weights["images"])
    np.testing.assert_allclose(logits, references["logits"], rtol=1e-12)
    for name, (attributions, scores, absorbed) in found.items():
        expected = references[f"zennit/{name}"]
        error = np.abs(attributions - expected).max() / np.abs(expected).max()
        assert error < 2e-5, name  # it adds 1e-6 to divisors
        np.testing.assert_allclose(scores, logits[[0, 1], targets], rtol=1e-12)
        np.testing.assert_allclose(scores - absorbed, attributions.sum((1, 2, 3)), rtol=1e-12)


def test_deeplift_is_that_of_captum_and_right_where_it_mistakes_maxima(references):
    weights, targets = drawn(), references["targets"]

    def maps(v, x, baseline):
        found = {}
        for pool in ("mean", "max"):
            apply = functools.partial(reference_network, is_normalized=True, pool=pool)
            change = apply(v, x) - apply(v, baseline)
            found[pool] = deeplift(apply, v, x, targets, baseline=baseline), change[jnp.arange(2), targets]
        return found

    ends = [(weights[name] - MEAN) / SCALE for name in ("images", "baseline")]
    found = run(maps, weights, *ends)
    np.testing.assert_allclose(found["mean"][0], references["captum/deep_lift"], **EXACT)
    for attributions, change in found.values():
        np.testing.assert_allclose(attributions.sum((1, 2, 3)), change, **EXACT)


# ------------------------------------------------------------------------------------- closed forms


def test_a_normalization_is_folded_into_the_convolution_before_it():
    """Whatever the signs of its scales, and whichever rule."""
    weights = drawn()
    gain = weights["norm_scale"] / np.sqrt(weights["norm_variance"] + 1e-5)
    folded = {
        "conv": weights["conv"] * gain,
        "bias": (weights["bias"] - weights["norm_mean"]) * gain + weights["norm_shift"],
        **{"norm_mean": np.zeros(5), "norm_variance": np.full(5, 1 - 1e-5)},
        **{"norm_scale": np.ones(5), "norm_shift": np.zeros(5)},
    }

    def maps(v, x):
        of = lambda rule: lrp(reference_network, v, x, 1, composite=rule)  # noqa: E731
        return [of(t.lrp_gamma(0.4)), of(t.lrp_alpha_beta(2.0, 1.0)), of(t.epsilon_gamma_box())]

    compiled = jax.jit(maps)
    for one, other in zip(
        compiled(weights, weights["images"]), compiled(weights | folded, weights["images"]), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


def test_lrp_0_of_relus_without_bias_is_input_times_gradient():
    rng = np.random.default_rng(5)
    weights, images = (rng.normal(size=(12, 7)), rng.normal(size=(7, 3))), rng.normal(size=(2, 2, 2, 3))

    def apply(v, x):
        return jax.nn.relu(x.reshape(len(x), 12) @ v[0]) @ v[1]

    def both(v, x):
        slope = jax.grad(lambda x: apply(v, x)[:, 1].sum())(x)
        return propagate(apply, v, x, 1, composite=LRP_0), x * slope

    (attributions, scores, absorbed), expected = run(both, weights, images)
    np.testing.assert_allclose(attributions, expected, **EXACT)
    np.testing.assert_allclose(attributions.sum((1, 2, 3)), scores, **EXACT)
    np.testing.assert_allclose(absorbed, 0, atol=1e-12)


def test_the_secant_conserves_through_activations_and_residuals():
    rng = np.random.default_rng(6)
    weights, images = rng.normal(size=(6, 8, 8)) / 2, rng.uniform(size=(2, 2, 2, 2))
    activations = (jax.nn.relu, jax.nn.silu, jnp.tanh, jax.nn.elu, jax.nn.softplus, jax.nn.gelu)

    def apply(v, x):
        x = x.reshape(len(x), 8)
        for w, f in zip(v, activations, strict=True):
            x = x + f(x @ w)
        return x

    found = run(lambda v, x: propagate(apply, v, x, 3, composite=LRP_0), weights, images)
    np.testing.assert_allclose(found.attributions.sum((1, 2, 3)), found.scores, rtol=1e-11)


def test_the_way_in_which_a_network_is_written_does_not_count():
    """In a loop, with convolutions that are calls or have a derivative of their own: bias is folded."""
    rng = np.random.default_rng(9)
    weights = {"kernels": rng.normal(size=(3, 3, 3, 3, 3)) / 4, "biases": rng.normal(size=(3, 3))}
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": networks.NHWC}
    plain = functools.partial(jax.lax.conv_general_dilated, **options)
    own = jax.custom_vjp(plain)
    own.defvjp(lambda x, w: (plain(x, w), (x, w)), lambda kept, g: kept)

    def network(v, x, conv=plain, is_loop=False):
        step = lambda x, w: (jax.nn.relu(conv(x, w[0]) + w[1]) + x, None)  # noqa: E731
        layers = (v["kernels"], v["biases"])
        if is_loop:
            x = jax.lax.scan(step, x, layers)[0]
        else:
            for w in zip(*layers, strict=True):
                x = step(x, w)[0]
        return x.mean((1, 2))

    ways = [
        {},
        {"is_loop": True},
        {"conv": jax.jit(plain)},
        {"conv": own},
        {"conv": jax.jit(own), "is_loop": True},
    ]

    def maps(v, x):
        made = [functools.partial(network, **way) for way in ways]
        return [lrp(apply, v, x, 0, composite=t.lrp_gamma()) for apply in made]

    first, *others = run(maps, weights, rng.normal(size=(2, 4, 5, 3)))
    for found in others:
        np.testing.assert_allclose(found, first, **EXACT)
