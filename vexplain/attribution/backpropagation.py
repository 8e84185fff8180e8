"""The derivative of a score by the pixels: plain, times the image, guided, or of a deconvolution network."""

import jax
import jax.numpy as jnp

from vexplain.transforms import DECONVNET, GUIDED, Rule, Rules, with_rules
from vexplain.typing import Attributions, Images, PyTree, ScoreFn, Variables


def gradient(score_fn: ScoreFn, variables: Variables, images: Images, targets: PyTree) -> Attributions:
    """Returns the gradient of the score by the images.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.

    References:
        Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, 2013.

    Example:
        >>> import jax.numpy as jnp
        >>> score = lambda variables, images, targets: (images * targets[:, None, None, None]).sum((1, 2, 3))
        >>> print(gradient(score, None, jnp.ones((2, 1, 1, 1)), jnp.array([2.0, 3.0])).ravel())
        [2. 3.]
    """
    return jax.grad(lambda images: score_fn(variables, images, targets).sum())(images)


def input_x_gradient(
    score_fn: ScoreFn, variables: Variables, images: Images, targets: PyTree
) -> Attributions:
    """Returns the images times the gradient of the score by them.

    Of a piecewise linear network without biases, the attributions of an image sum to its score. They measure
    from a black image: a black pixel gets nothing. `integrated_gradients` takes other baselines.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.

    References:
        Shrikumar et al., Not Just a Black Box, 2016, Section 3.2.

    Example:
        >>> import jax.numpy as jnp
        >>> score = lambda variables, images, targets: (images * variables).sum((1, 2, 3))
        >>> weights = jnp.array([2.0, -1.0])
        >>> print(input_x_gradient(score, weights, jnp.array([[[[0.5, 1.0]]]]), None)[0, 0, 0])
        [ 1. -1.]
    """
    return jnp.asarray(images) * gradient(score_fn, variables, images, targets)


def guided_backprop(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    rules: Rule | Rules = GUIDED,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns the gradient of the score by the images, with guided ReLUs (or other backward rules).

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        rules: backward rules, for instance `GUIDED | RESAMPLED_STRIDE`.
        on_uncovered: what to do about activation functions that no rule covers, see `with_rules`.
        on_unmatched: what to do about a rule that matches no layer, see `with_rules`.

    Raises:
        ValueError: an activation function is not covered, or a rule matches nothing.

    References:
        Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2015.

    Example:
        >>> import jax.numpy as jnp
        >>> score = lambda w, images, targets: (jax.nn.relu(images.sum((1, 2))) @ w)[:, 0]
        >>> images, w = jnp.ones((1, 1, 2, 2)), jnp.array([[-1.0], [3.0]])
        >>> targets = jnp.array([0])
        >>> print(gradient(score, w, images, targets)[0, 0])
        [[-1.  3.]
         [-1.  3.]]
        >>> print(guided_backprop(score, w, images, targets)[0, 0])
        [[0. 3.]
         [0. 3.]]
    """
    ruled = with_rules(score_fn, rules, on_uncovered=on_uncovered, on_unmatched=on_unmatched)
    return gradient(ruled, variables, images, targets)


def deconvnet(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns what a deconvolution network sends back to the pixels.

    It is the gradient of the score in which every ReLU passes on what comes back positive, whatever its
    sign before it was: `with_rules(score_fn, DECONVNET)`. Max pooling is undone by its switches, as in the
    gradient.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        on_uncovered: what to do about activation functions other than ReLU, see `with_rules`.
        on_unmatched: what to do about a network without ReLUs, see `with_rules`.

    Raises:
        ValueError: an activation function is not covered, or there is no ReLU.

    References:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, Section 2.1.

    Example:
        >>> import jax.numpy as jnp
        >>> score = lambda w, images, targets: (jax.nn.relu(images.sum((1, 2))) @ w)[:, 0]
        >>> images, w = jnp.array([[[[-1.0, 1.0]]]]), jnp.array([[2.0], [-3.0]])
        >>> print(gradient(score, w, images, jnp.array([0]))[0, 0, 0])
        [ 0. -3.]
        >>> print(deconvnet(score, w, images, jnp.array([0]))[0, 0, 0])
        [2. 0.]
    """
    ruled = with_rules(score_fn, DECONVNET, on_uncovered=on_uncovered, on_unmatched=on_unmatched)
    return gradient(ruled, variables, images, targets)
