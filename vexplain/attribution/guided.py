"""Gradients with other backward rules: guided backpropagation and the deconvolution network.

In all functions:
    on_uncovered: what to do about activation functions that no rule covers, see `with_rules`.
    on_unmatched: what to do about a rule that matches no layer, see `with_rules`.
"""

from vexplain.attribution.calling import Network, attribution_method
from vexplain.transforms import DECONVNET, GUIDED, Rule, Rules
from vexplain.typing import Array, Attributions, Targets


@attribution_method
def guided_backprop(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    rules: Rule | Rules = GUIDED,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns the gradient of the score by the images, with guided ReLUs (or other backward rules).

    A ReLU with input x sends back g · [x > 0] · [g > 0] of what arrives, g.

    Args:
        rules: backward rules, for instance `GUIDED | RESAMPLED_STRIDE | RESAMPLED_POOL`.

    Raises:
        ValueError: an activation function is not covered, or a rule matches nothing.

    References:
        Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2015.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> apply = lambda w, images: jax.nn.relu(images.sum((1, 2))) @ w
        >>> w = jnp.array([[-1.0, 0.0], [3.0, 0.0]])
        >>> print(guided_backprop(apply, w, jnp.ones((1, 1, 2, 2)), targets=0)[0, 0])
        [[0. 3.]
         [0. 3.]]
    """
    ruled = network.with_rules(rules, on_uncovered=on_uncovered, on_unmatched=on_unmatched)
    return ruled.gradient(images, targets)


@attribution_method
def deconvnet(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    rules: Rule | Rules = DECONVNET,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns what a deconvolution network sends back to the pixels.

    It is the gradient of the score in which every ReLU passes on what comes back positive, g · [g > 0],
    whatever its sign before it was. Max pooling is undone by its switches, as in the gradient.

    Args:
        rules: backward rules, for instance `DECONVNET | RESAMPLED_STRIDE`.

    Raises:
        ValueError: an activation function is not covered, or a rule matches nothing.

    References:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, Section 2.1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> apply = lambda w, images: jax.nn.relu(images.sum((1, 2)) - 1) @ w
        >>> w = jnp.array([[2.0, 0.0], [-3.0, 0.0]])
        >>> print(deconvnet(apply, w, jnp.array([[[[0.0, 0.5]]]]), targets=0)[0, 0])
        [[2. 0.]]
    """
    ruled = network.with_rules(rules, on_uncovered=on_uncovered, on_unmatched=on_unmatched)
    return ruled.gradient(images, targets)
