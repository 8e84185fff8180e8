"""Backward rules: other derivatives for some steps of a network, as values that compose.

`with_rules(fn, GUIDED | RESAMPLED_STRIDE)` computes what `fn` computes, bit for bit; only what reverse-mode
differentiation (`jax.grad`, `jax.vjp`) sends back through the matched steps is changed.

A convolution of stride s spreads its cotangent over a lattice of spacing s, and a grid appears in the
heatmap. RESAMPLED_STRIDE (*paper*, Oramas et al., 2019, Section 3.3; here for every strided convolution,
not only the first) enlarges g to the size that stride 1 would give, by nearest neighbors, and sends it back
through the same kernel with stride 1. `Rule` has the formulas of the others.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.transforms.interpreter import IN_COND, Equation, Path, Replacement, evaluate
from vexplain.transforms.layer_kinds import LINEAR_KINDS
from vexplain.transforms.layer_table import Layer, LayerTable, Obstacle, traced_layers

Backward = Callable[[Equation, Layer, Callable[..., Any], Sequence[Any], Any], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One backward rule: what reverse-mode differentiation sends back through the steps that it matches.

    With x the input of a step and g what arrives at its output, where the gradient of a ReLU is g · [x > 0]:

        GUIDED            through a ReLU, g · [x > 0] · [g > 0]      Springenberg et al., 2015
        DECONVNET         through a ReLU, g · [g > 0]                Zeiler and Fergus, 2014
        RESAMPLED_STRIDE  through a strided convolution, g enlarged by nearest neighbors, then the gradient of
                          the same convolution with stride 1         Oramas et al., 2019, Section 3.3

    Put them into a network by `with_rules(fn, GUIDED | RESAMPLED_STRIDE)`.

    Attributes:
        name: for messages.
        matches: which layers it is for.
        backward: `(step, layer, original, inputs, cotangent) -> cotangents of the inputs`, `None` for
            zero. `original(*inputs)` is the step itself, for instance for `jax.vjp`.
        covers_activations: it stands for a derivative of *all* activation functions; a network with
            others than it matches is refused.
    """

    name: str
    matches: Callable[[Layer], bool]
    backward: Backward
    covers_activations: bool = False

    def __or__(self, other: "Rule | Rules") -> "Rules":
        return Rules((self,)) | other


@dataclasses.dataclass(frozen=True)
class Rules:
    """Several rules, each for its own layers."""

    rules: tuple[Rule, ...]

    def __or__(self, other: "Rule | Rules") -> "Rules":
        more = (other,) if isinstance(other, Rule) else other.rules
        return Rules(tuple(dict.fromkeys((*self.rules, *more))))


def with_rules(
    fn: Callable[..., Any],
    rules: Rule | Rules,
    *,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Callable[..., Any]:
    """Returns `fn` with other backward rules; its outputs stay as they are.

    GUIDED sends back through a ReLU only what is positive there, both before it and coming back (guided
    backpropagation); DECONVNET only what comes back positive (deconvolution); RESAMPLED_STRIDE passes strided
    convolutions without leaving their grid. `Rule` has the formulas.

    Rules exist in reverse mode only: `jax.grad`, `jax.vjp` and `jax.jacrev` follow them, `jax.jvp` and
    `jax.jacfwd` fail. An activation function is found by its operation. Not told from linear steps, and left
    with its gradient: a product of two activations (bilinear layers, gates), a root or logarithm, a maximum
    over an axis or over slices of one array (pooling), rounding, sorting.

    Args:
        fn: any traceable function of (variables, images, ...).
        rules: one rule, or several joined by `|`.
        on_uncovered: `"raise"`, or `"gradient"` to keep the gradient of an activation function that a rule
            such as GUIDED says nothing of (GELU, SiLU, tanh, ...).
        on_unmatched: `"raise"`, or `"ignore"` a rule that matches no layer.

    Raises:
        ValueError: at the first call. An activation function is not covered, a rule matches nothing, two
            rules match the same layer, or a matched layer cannot be reached.

    References:
        Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2015, Section 3.4.
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, Section 2.1.
        Oramas et al., Visual Explanation by Interpretation, 2019, Section 3.3.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def score(variables, images):
        ...     return -jax.nn.relu(images).sum()
        >>> images = jnp.ones((1, 2, 2, 1))
        >>> print(jax.grad(score, argnums=1)(None, images).sum())
        -4.0
        >>> print(jax.grad(with_rules(score, GUIDED), argnums=1)(None, images).sum())
        0.0
    """
    chosen = Rules((rules,)) if isinstance(rules, Rule) else rules
    check_choice("on_uncovered", on_uncovered, ("raise", "gradient"))
    check_choice("on_unmatched", on_unmatched, ("raise", "ignore"))

    def ruled(variables, images, *rest):
        args = (variables, images, *rest)
        program, table, obstacles, steps = traced_layers(fn, args)
        matched = _match(table, chosen)
        if on_uncovered == "raise":
            _check_covered(table, obstacles, chosen, matched)
        if on_unmatched == "raise":
            _check_matched(table, chosen)
        replacements = {
            layer.step_path: _replacement(rule, layer, steps[layer.step_path])
            for rule, layer in matched.values()
        }
        return evaluate(program, args, replacements, keeps_calls=True)

    return ruled


def matched_layers(
    fn: Callable[..., Any], rules: Rule | Rules, variables: Any, images: Any
) -> dict[str, tuple[str, ...]]:
    """Returns, for each rule's name, the names of the layers that it matches in a network.

    Args:
        fn: the network, `fn(variables, images)`.
        rules: one rule, or several joined by `|`.
        variables: of the network, arrays or `ShapeDtypeStruct`s.
        images: an example of its input.

    Example:
        >>> network = lambda w, images: jax.nn.relu(images.mean((1, 2)) @ w) @ w
        >>> matched_layers(network, GUIDED | RESAMPLED_STRIDE, jnp.eye(3), jnp.ones((1, 4, 4, 3)))
        {'GUIDED': ('relu_1',), 'RESAMPLED_STRIDE': ()}
    """
    chosen = Rules((rules,)) if isinstance(rules, Rule) else rules
    matched = _match(traced_layers(fn, (variables, images))[1], chosen).values()
    return {
        rule.name: tuple(layer.name for other, layer in matched if other is rule) for rule in chosen.rules
    }


def _match(table: LayerTable, rules: Rules) -> dict[Path, tuple[Rule, Layer]]:
    matched: dict[Path, tuple[Rule, Layer]] = {}
    for rule in rules.rules:
        for layer in filter(rule.matches, table):
            if layer.inside not in (None, IN_COND):
                raise ValueError(
                    f"rule {rule.name} matches layer {layer.name!r} inside {layer.inside}, where no "
                    "rule can be put; write the layer outside of it"
                )
            if layer.step_path in matched:
                other = matched[layer.step_path][0].name
                raise ValueError(f"rules {other} and {rule.name} both match layer {layer.name!r}")
            matched[layer.step_path] = (rule, layer)
    return matched


def _check_matched(table: LayerTable, rules: Rules) -> None:
    for rule in rules.rules:
        if not any(map(rule.matches, table)):
            kinds = ", ".join(sorted({layer.kind for layer in table}))
            raise ValueError(
                f"rule {rule.name} matches nothing in this network, which has the kinds of layers: "
                f'{kinds or "none"}; pass on_unmatched="ignore" to go on without it, or leave the rule out'
            )


def _check_covered(
    table: LayerTable, obstacles: Sequence[Obstacle], rules: Rules, matched: dict[Path, Any]
) -> None:
    covering = [rule.name for rule in rules.rules if rule.covers_activations]
    left = {
        layer.name: layer.kind
        for layer in table
        if layer.kind not in LINEAR_KINDS and layer.step_path not in matched
    }
    left |= {f"the call {o.what!r}": "a program that cannot be looked into" for o in obstacles}
    if covering and left:
        names = ", ".join(f"{name} ({kind})" for name, kind in left.items())
        raise ValueError(
            f"{' | '.join(covering)} says nothing of these non-linear steps: {names}; "
            'pass on_uncovered="gradient" to keep their ordinary derivative'
        )


def _replacement(rule: Rule, layer: Layer, step: Equation) -> Replacement:
    def replacement(original, inputs):
        ruled_step = jax.custom_vjp(lambda *xs: original(*xs))

        def forward(*xs):
            return original(*xs), xs

        def backward(xs, cotangent):
            return tuple(rule.backward(step, layer, original, xs, cotangent))

        ruled_step.defvjp(forward, backward)
        return ruled_step(*inputs)

    return replacement


def _relu_rule(name: str, passes: Callable[[Any, Any], Any]) -> Rule:
    def backward(step, layer, original, inputs, cotangent):
        x = inputs[layer.operand]
        sent = jnp.where(passes(x, cotangent), cotangent, jnp.zeros_like(cotangent))
        return [sent if i == layer.operand else None for i in range(len(inputs))]

    return Rule(name, lambda layer: layer.kind == "relu", backward, covers_activations=True)


def _resampled_stride(step, layer, original, inputs, cotangent):
    lhs, rhs = inputs
    p = step.params
    if any(d != 1 for d in p["lhs_dilation"]):
        raise ValueError(
            f"RESAMPLED_STRIDE does not apply to layer {layer.name!r}, a transposed convolution "
            f"(input dilation {tuple(p['lhs_dilation'])})"
        )
    numbers = p["dimension_numbers"]
    options = {k: p[k] for k in ("padding", "rhs_dilation", "feature_group_count")}
    options |= {k: p[k] for k in ("batch_group_count", "precision", "preferred_element_type")}

    def dense(x):
        strides = (1,) * len(p["window_strides"])
        return jax.lax.conv_general_dilated(x, rhs, strides, dimension_numbers=numbers, **options)

    out, send = jax.vjp(dense, lhs)
    enlarged = jax.image.resize(cotangent, out.shape, "nearest")
    (lhs_cotangent,) = send(enlarged.astype(out.dtype))
    rhs_cotangent = jax.vjp(original, lhs, rhs)[1](cotangent)[1]
    return lhs_cotangent, rhs_cotangent


GUIDED = _relu_rule("GUIDED", lambda x, g: (x > 0) & (g > 0))
DECONVNET = _relu_rule("DECONVNET", lambda x, g: g > 0)
RESAMPLED_STRIDE = Rule(
    "RESAMPLED_STRIDE", lambda layer: any(s > 1 for s in layer.strides), _resampled_stride
)
