"""Layer-wise relevance propagation (LRP) as backward rules.

LRP gives every activation a a relevance R, from the score back to the pixels, so that the sum is kept but for
what biases take. Here c = R / a is carried instead of R, for most steps then keep their ordinary gradient:
sums, residual connections, average pooling, reshapes, padding, and max pooling, whose relevance goes to the
winner. At the end R = images · c. With u what enters a linear layer and z = W u + b what leaves it (its bias,
and a normalization with constant statistics, are a part of it), and a⁺, a⁻ the positive and negative parts:

    lrp_epsilon(ε)          c_u = Wᵀ (c z / (z + ε sign z)); ε = 0 is LRP-0, c_u = Wᵀ c      Bach et al., 2015
    lrp_gamma(γ)            W + γ W⁺ in place of W, and the same of z                  Montavon et al., 2019
    lrp_alpha_beta(α, β)    α and β times the shares of the positive and the negative W u   Bach et al., 2015
    lrp_z_plus()            the same of α = 1, β = 0                                    Montavon et al., 2017
    lrp_box(low, high)      zB, for pixels that are bounded, at the first linear layer  Montavon et al., 2017
    lrp_w_squared()         shares of the squared weights, there too                    Montavon et al., 2017
    lrp_flat()              equal shares, there too                                        Bach et al., 2016
    LRP_SECANT              through an activation function f, c · f(x) / x, 0 at 0: R passes unchanged
    LRP_DEVIATION           through a layer, group or RMS normalization, the gradient with the deviation held
                            constant                        Ali et al., 2022; Achtibat et al., 2024
    LRP_HALVES              through a product of two activations, half of the gradient to each
                                                            Achtibat et al., 2024
    LRP_SIGNAL              the same, but all to what a softmax or a sigmoid scales: nothing goes through
                            attention weights and gates     Arras et al., 2017; Ali et al., 2022 (CP-LRP)

The softmax keeps its gradient, which is the rule of AttnLRP (Achtibat et al., 2024). That gamma and
alpha-beta take inputs of both signs is the generalized rule of Andéol et al., 2021; that gamma then needs two
linear passes back and one forward, by the absolute values of u and W, is ours.

Some authors say that LRP is patented for commercial use.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vexplain.transforms.rule import Rule
from vexplain.transforms.spellings import RECOGNIZED


@functools.cache
def lrp_epsilon(epsilon: float = 1e-6) -> Rule:
    """Returns the rule c_u = Wᵀ (c z / (z + ε sign z)) of linear layers.

    Args:
        epsilon: ε, 0 or more; what it takes of small z is lost, and the maps have less noise.

    Example:
        >>> apply = lambda w, images: images.sum((1, 2)) @ w
        >>> from vexplain.attribution import lrp
        >>> images, w = jnp.array([[[[0.5, 1.0]]]]), jnp.array([[2.0, 0.0], [3.0, 1.0]])
        >>> print(lrp(apply, w, images, 0, composite=lrp_epsilon(0.0))[0, 0])
        [[1. 3.]]
    """
    _check("epsilon", epsilon)

    def backward(step, layer, original, inputs, cotangent):
        z = original(*inputs)
        shared = cotangent * _ratio(z, z + epsilon * _sign(z)) if epsilon else cotangent
        return _only(
            step, inputs, jax.vjp(_of_entering(original, step, inputs), inputs[step.operand])[1](shared)[0]
        )

    return _linear_rule(f"lrp_epsilon({epsilon:g})", backward)


@functools.cache
def lrp_gamma(gamma: float = 0.25) -> Rule:
    """Returns the rule that gives positive contributions 1 + γ times the weight, of linear layers.

    For z > 0, and with the signs of all contributions changed for z < 0,

        R_i = Σ_j (u_i w_ij + γ (u_i w_ij)⁺) / (Σ_i' (u_i' w_i'j + γ (u_i' w_i'j)⁺) + b_j + γ b_j⁺) R_j

    Args:
        gamma: γ, 0 or more.
    """
    _check("gamma", gamma)

    def backward(step, layer, original, inputs, cotangent):
        parts, z = step.take_apart(inputs), original(*inputs)
        u, w, scale = parts.entering, parts.weights, jnp.abs(parts.gain)
        size, own = scale * parts.linear(jnp.abs(u), jnp.abs(w)), z - parts.bias
        favored = jnp.where(
            z > 0,
            (size + own) / 2 + jnp.maximum(parts.bias, 0),  # Σ (u w)⁺ + b⁺
            (own - size) / 2 + jnp.minimum(parts.bias, 0),  # Σ (u w)⁻ + b⁻
        )
        shared = cotangent * _ratio(z, z + gamma * favored)
        plain = parts.transposed(w, shared * parts.gain)
        size = parts.transposed(jnp.abs(w), shared * scale * _sign(z))
        sent = (1 + gamma / 2) * plain + gamma / 2 * _sign(u) * size
        return _only(step, inputs, _through(parts.enter, inputs[step.operand], sent))

    return _linear_rule(f"lrp_gamma({gamma:g})", backward)


@functools.cache
def lrp_alpha_beta(alpha: float = 2.0, beta: float = 1.0) -> Rule:
    """Returns the rule that takes positive and negative contributions apart, of linear layers.

        R_i = Σ_j (α (u_i w_ij)⁺ / p_j - β (u_i w_ij)⁻ / n_j) R_j,
        p_j = Σ_i (u_i w_ij)⁺ + b_j⁺,        n_j = Σ_i (u_i w_ij)⁻ + b_j⁻

    Args:
        alpha: α, 1 or more.
        beta: β = α - 1, so that the sum is kept; 0 is the z⁺ rule.

    Raises:
        ValueError: α - β is not 1, or β is negative.
    """
    _check("beta", beta)
    if abs(alpha - beta - 1) > 1e-9:
        raise ValueError(
            f"alpha is {alpha} and beta {beta}: expected alpha - beta = 1, as in (2, 1) or (1, 0)"
        )

    def backward(step, layer, original, inputs, cotangent):
        parts = step.take_apart(inputs)
        u, relevance = parts.entering, cotangent * original(*inputs)
        positive, negative = jnp.maximum(parts.weights, 0), jnp.minimum(parts.weights, 0)
        turned, has_both = parts.gain < 0, bool(beta) or parts.has_gain
        above = _signed_linear(parts, u, positive, negative)
        below = _signed_linear(parts, u, negative, positive) if has_both else 0.0
        up = parts.gain * jnp.where(turned, below, above) + jnp.maximum(parts.bias, 0)
        down = parts.gain * jnp.where(turned, above, below) + jnp.minimum(parts.bias, 0)
        up, down = alpha * _ratio(relevance, up), -beta * _ratio(relevance, down)
        a, b = parts.gain * jnp.where(turned, down, up), parts.gain * jnp.where(turned, up, down)
        sent = parts.transposed(positive, a) + (parts.transposed(negative, b) if has_both else 0.0)
        if not parts.is_nonnegative:
            other = parts.transposed(negative, a) + (parts.transposed(positive, b) if has_both else 0.0)
            sent = jnp.where(u < 0, other, sent)
        return _only(step, inputs, _through(parts.enter, inputs[step.operand], sent))

    return _linear_rule(f"lrp_alpha_beta({alpha:g}, {beta:g})", backward)


def lrp_z_plus() -> Rule:
    """Returns the rule by positive contributions alone, of linear layers: `lrp_alpha_beta(1, 0)`."""
    return lrp_alpha_beta(1.0, 0.0)


@functools.cache
def lrp_box(low: float = 0.0, high: float = 1.0) -> Rule:
    """Returns the zB rule, of the first linear layer: for pixels that lie between two bounds.

        R_i = Σ_j z_ij / (Σ_i' z_i'j) R_j,        z_ij = u_i w_ij - l_i w_ij⁺ - h_i w_ij⁻

    Where a network normalizes its pixels inside, l and h are what becomes of the bounds there.

    Args:
        low: the least value of a pixel.
        high: the greatest one.
    """
    if not low < high:
        raise ValueError(f"low is {low} and high {high}: expected low < high, the bounds of a pixel")

    def backward(step, layer, original, inputs, cotangent):
        parts, x = step.take_apart(inputs), inputs[step.operand]
        u, w, z = parts.entering, parts.weights, original(*inputs)
        ends = parts.enter(jnp.full_like(x, low)), parts.enter(jnp.full_like(x, high))
        least, most = jnp.minimum(*ends), jnp.maximum(*ends)
        positive, negative = jnp.maximum(w, 0), jnp.minimum(w, 0)
        upright = parts.linear(least, positive) + parts.linear(most, negative)
        turned = parts.linear(least, negative) + parts.linear(most, positive)
        own = z - parts.bias - parts.gain * jnp.where(parts.gain < 0, turned, upright)
        shared = parts.gain * _ratio(cotangent * z, own)
        kept, other = jnp.where(parts.gain < 0, 0, shared), jnp.where(parts.gain < 0, shared, 0)
        from_least = parts.transposed(positive, kept) + parts.transposed(negative, other)
        from_most = parts.transposed(negative, kept) + parts.transposed(positive, other)
        sent = u * parts.transposed(w, shared) - least * from_least - most * from_most
        return _only(step, inputs, _through(parts.place, x, sent))

    return _linear_rule(f"lrp_box({low:g}, {high:g})", backward, is_of_pixels=True)


@functools.cache
def lrp_w_squared() -> Rule:
    """Returns the w² rule, of the first linear layer: R_i = Σ_j w_ij² / (Σ_i' w_i'j²) R_j."""
    return _linear_rule("lrp_w_squared", _by_weights(lambda w: w * w), is_of_pixels=True)


@functools.cache
def lrp_flat() -> Rule:
    """Returns the flat rule, of the first linear layer: the pixels that it sees share equally.

    A position of the map shares among the pixels that its weights reach, which zeros of padding are not.
    """
    return _linear_rule("lrp_flat", _by_weights(jnp.ones_like), is_of_pixels=True)


def _by_weights(changed):
    """Shares of other weights, whatever the pixels are; of pixels alone, not of padding."""

    def backward(step, layer, original, inputs, cotangent):
        parts, x = step.take_apart(inputs), inputs[step.operand]
        weights = changed(parts.weights)
        seen = parts.place(jnp.ones_like(x))
        shared = _ratio(cotangent * original(*inputs), parts.linear(seen, weights))
        return _only(step, inputs, _through(parts.place, x, seen * parts.transposed(weights, shared)))

    return backward


def _secant(step, layer, original, inputs, cotangent):
    x = inputs[step.operand]
    return _only(step, inputs, cotangent * _ratio(original(*inputs), x))


def _with_constant_deviation(step, layer, original, inputs, cotangent):
    (sent,) = jax.vjp(_of_entering(original, step, inputs), inputs[step.operand])[1](cotangent)
    return _only(step, inputs, sent)


def _halved(step, layer, original, inputs, cotangent):
    return [None if sent is None else sent / 2 for sent in jax.vjp(original, *inputs)[1](cotangent)]


LRP_SECANT = Rule("LRP_SECANT", lambda layer, table: layer.kind in RECOGNIZED, _secant, is_propagation=True)
LRP_DEVIATION = Rule(
    "LRP_DEVIATION",
    lambda layer, table: layer.kind == "deviation",
    _with_constant_deviation,
    is_propagation=True,
)
LRP_HALVES = Rule(
    "LRP_HALVES", lambda layer, table: layer.kind in ("product", "gate"), _halved, is_propagation=True
)
LRP_SIGNAL = Rule(
    "LRP_SIGNAL",
    lambda layer, table: layer.kind in ("product", "gate"),
    lambda step, layer, *rest: (_with_constant_deviation if layer.kind == "gate" else _halved)(
        step, layer, *rest
    ),
    is_propagation=True,
)


def _linear_rule(name: str, backward: Any, *, is_of_pixels: bool = False) -> Rule:
    return Rule(
        name,
        lambda layer, table: layer.kind in ("conv", "dense") and (layer.is_first or not is_of_pixels),
        backward,
        is_propagation=True,
        sends_attributions=is_of_pixels,
    )


def _signed_linear(parts, u, weights, of_negative):
    """L(u⁺, weights) + L(u⁻, of_negative)."""
    if parts.is_nonnegative:
        return parts.linear(u, weights)
    return parts.linear(jnp.maximum(u, 0), weights) + parts.linear(jnp.minimum(u, 0), of_negative)


def _only(step, inputs: Sequence[Any], sent: Any) -> list[Any]:
    """Cotangents of which all are zero but that of the activation which enters."""
    return [sent if k == step.operand else None for k in range(len(inputs))]


def _of_entering(original, step, inputs):
    before, after = inputs[: step.operand], inputs[step.operand + 1 :]
    return lambda x: original(*before, x, *after)


def _through(fn, x, cotangent):
    return jax.vjp(fn, x)[1](cotangent)[0]


def _sign(x: Any) -> Any:
    return jnp.where(x < 0, -1, 1).astype(x.dtype)


def _ratio(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    is_zero = b == 0
    return jnp.where(is_zero, 0, a / jnp.where(is_zero, 1, b))


def _check(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name} is {value}: expected 0 or more")
