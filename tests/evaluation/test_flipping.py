"""Areas of deletion and insertion of linear scores in closed form, for several methods and baselines."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation import own
from vexplain.attribution import logit, probability
from vexplain.evaluation.explained_network import ExplainedNetwork
from vexplain.evaluation.flipping import BASELINES, flipping_scores

HEIGHT, WIDTH, NUM_IMAGES = 5, 7, 5
WEIGHTS = np.random.default_rng(1).normal(size=(HEIGHT * WIDTH * 3, 2)).astype(np.float32)
IMAGES = np.random.default_rng(0).uniform(size=(NUM_IMAGES, HEIGHT, WIDTH, 3)).astype(np.float32)
TARGETS = np.array([1, 0, 1, 1, 0])


def apply(variables, images):
    return images.reshape(len(images), -1) @ variables


def contribution(variables, images, targets, keys):
    """What each pixel adds to the logit above gray."""
    weights = variables.T[targets].reshape(-1, HEIGHT, WIDTH, 3)
    return (weights * (images - 0.5)).sum(-1)


METHODS = {
    "contribution": contribution,
    "against it": lambda *arguments: -contribution(*arguments),
    "constant": lambda v, x, t, keys: jnp.zeros(x.shape[:3]),
}
NETWORK = ExplainedNetwork(jnp.asarray(WEIGHTS), None)


def scores(methods, **options):
    options = {"baselines": {"gray": lambda images: 0.5, "border": BASELINES["border color"]}, **options}
    options = {"key": jax.random.key(3), "num_steps": HEIGHT * WIDTH, "targets": TARGETS, **options}
    return flipping_scores(apply, own.methods(methods), NETWORK, {"images": IMAGES}, **options)


@pytest.fixture(scope="module")
def logits():
    return scores(METHODS, score=logit, batch_size=2)


def area(first, steps):
    """By the trapezoidal rule, of a score that starts at `first` and changes by `steps`."""
    return np.trapezoid(np.cumsum([first, *steps]), np.linspace(0, 1, len(steps) + 1))


def test_against_sorted_contributions(logits):
    weights = np.float64(WEIGHTS.T[TARGETS]).reshape(IMAGES.shape)
    border = np.stack([np.vstack([x[0], x[-1], x[1:-1, 0], x[1:-1, -1]]).mean(0) for x in IMAGES])
    for name, cover in {"gray": np.full((NUM_IMAGES, 3), 0.5), "border": border}.items():
        for n, (w, x) in enumerate(zip(weights, np.float64(IMAGES), strict=True)):
            gain = (w * (x - cover[n])).sum(-1).ravel()
            order = np.argsort(-(w * (x - 0.5)).sum(-1).ravel())
            whole, empty = (w * x).sum(), (w * cover[n]).sum()
            found = logits["contribution"]
            np.testing.assert_allclose(found.deletion[name][n], area(whole, -gain[order]), rtol=1e-4)
            np.testing.assert_allclose(found.insertion[name][n], area(empty, gain[order]), rtol=1e-4)
            other = logits["against it"].deletion[name][n]
            np.testing.assert_allclose(other, area(whole, -gain[order[::-1]]), rtol=1e-4)


def test_the_better_map_has_the_smaller_deletion_and_a_constant_one_is_between(logits):
    for one, other in itertools.pairwise(("contribution", "constant", "against it")):
        assert (logits[one].deletion["gray"] < logits[other].deletion["gray"]).all()
        assert (logits[one].insertion["gray"] > logits[other].insertion["gray"]).all()


def test_an_image_scores_the_same_in_any_batch(logits):
    """Ties too: the order of equal pixels follows from the image's index."""
    methods = {"constant": METHODS["constant"]}
    whole = scores(methods, score=logit)["constant"]
    for found, expected in zip(jax.tree.leaves(whole), jax.tree.leaves(logits["constant"]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    other = scores(methods, score=logit, key=jax.random.key(4))["constant"]
    assert (other.deletion["gray"] != whole.deletion["gray"]).all()


def test_the_default_is_the_probability_under_blur_and_border_color():
    found = scores({"contribution": contribution}, baselines=BASELINES, targets=None, num_steps=1)
    targets = (IMAGES.reshape(NUM_IMAGES, -1) @ WEIGHTS).argmax(1)
    for name, baseline in BASELINES.items():
        cover = jnp.broadcast_to(baseline(jnp.asarray(IMAGES)), IMAGES.shape)
        ends = [probability(apply(jnp.asarray(WEIGHTS), x), jnp.asarray(targets)) for x in (IMAGES, cover)]
        np.testing.assert_allclose(found["contribution"].deletion[name], np.mean(ends, axis=0), rtol=1e-4)
        np.testing.assert_allclose(found["contribution"].insertion[name], np.mean(ends, axis=0), rtol=1e-4)


def test_the_maps_of_all_methods_go_through_one_program():
    traces = []

    def score(outputs, targets):
        traces.append(0)
        return logit(outputs, targets)

    scores({"contribution": contribution}, score=score)
    once = len(traces)
    scores(METHODS, score=score)
    assert len(traces) == 2 * once


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="baselines is empty"):
        scores(METHODS, baselines={})
    with pytest.raises(ValueError, match="signs\\['constant'\\] is 'positive'"):
        scores(METHODS, signs={"constant": "positive"})
    with pytest.raises(ValueError, match="batch_size is 0"):
        scores(METHODS, batch_size=0)
