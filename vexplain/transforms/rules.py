"""Backward rules: other derivatives for some steps of a network, as values that compose.

`with_rules(fn, GUIDED | RESAMPLED_STRIDE)` computes what `fn` computes, bit for bit; only what reverse-mode
differentiation (`jax.grad`, `jax.vjp`) sends back through the matched steps is changed.

A convolution of stride s spreads its cotangent over a lattice of spacing s, and a grid appears in the
heatmap. RESAMPLED_STRIDE (*paper*, Oramas et al., 2019, Section 3.3; here for every strided convolution,
not only the first) enlarges g to the size that stride 1 would give, by nearest neighbors, and sends it back
through the same kernel with stride 1. RESAMPLED_POOL (*ours*) takes the same to poolings, see `pooling`.
`Rule` has the formulas of the others.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.transforms.interpreter import Change, Operand, evaluate
from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_kinds import LINEAR_KINDS, Draft
from vexplain.transforms.layer_table import LayerTable, Traced, traced_layers
from vexplain.transforms.linear_parts import parts_of, run
from vexplain.transforms.pooling import send_resized
from vexplain.transforms.program import IN_COND, Equation, Path, Value, is_literal
from vexplain.transforms.rule import Rule, Rules, Step
from vexplain.transforms.spans import STATISTIC, ways_around

_MOST_NAMED = 3  # layers that a message names
_OWN_DERIVATIVES = (
    "a custom_jvp function",
    "a custom_vjp function",
)  # which a propagation takes the place of


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
    convolutions without leaving their grid, RESAMPLED_POOL poolings without leaving speckles. `Rule` has the
    formulas.

    Rules exist in reverse mode only: `jax.grad`, `jax.vjp` and `jax.jacrev` follow them, `jax.jvp` and
    `jax.jacfwd` fail. An activation function is found by its values, in any spelling. Steps that are linear
    in the images keep their gradient, and so do normalizations, max pooling, softmax attention and
    squeeze-and-excite gates; all other steps are non-linear, and refused by a rule that says nothing of them.

    Args:
        fn: any traceable function of (variables, images, ...).
        rules: one rule, or several joined by `|`.
        on_uncovered: `"raise"`, or `"gradient"` to keep the gradient of an activation function that a rule
            such as GUIDED says nothing of (GELU, SiLU, tanh, ...).
        on_unmatched: `"raise"`, or `"ignore"` a rule that matches no layer.

    Raises:
        ValueError: at the first call. An activation function is not covered, a rule matches nothing, two
            rules match the same layer, or a matched layer cannot be reached.

    A pooling is known as a layer: a reduction over windows, or over the blocks of a reshape. RESAMPLED_POOL
    leaves the gradient of one that is written otherwise (axis by axis, `maximum` of slices).

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
        traced = _seen(fn, args, chosen)
        matched = _match(traced, chosen)
        if on_uncovered == "raise":
            _check_covered(traced, chosen, matched)
        _check_ways(traced, chosen, matched)
        if on_unmatched == "raise":
            _check_matched(traced.table, chosen)
        return evaluate(traced.program, args, _changes(traced, matched))[0]

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
    matched = _match(_seen(fn, (variables, images), chosen), chosen).values()
    return {
        rule.name: tuple(layer.name for other, layer in matched if other is rule) for rule in chosen.rules
    }


def _seen(fn: Callable[..., Any], args: Sequence[Any], rules: Rules) -> Traced:
    """The network as its rules see it."""
    return traced_layers(fn, args, as_spans=any(rule.is_propagation for rule in rules.rules))


def _match(traced: Traced, rules: Rules) -> dict[int, tuple[Rule, Layer]]:
    """By place in the table."""
    table = traced.table
    matched: dict[int, tuple[Rule, Layer]] = {}
    for rule in rules.rules:
        for layer in table:
            if not rule.matches(layer, table):
                continue
            inside = next((s.inside for s in traced.drafts[layer.index].steps if s.inside), None)
            if inside not in (None, IN_COND) and not (rule.is_propagation and inside in _OWN_DERIVATIVES):
                raise ValueError(
                    f"rule {rule.name} matches layer {layer.name!r} inside {inside}, where no "
                    "rule can be put; write the layer outside of it"
                )
            if layer.index in matched:
                other = matched[layer.index][0].name
                raise ValueError(f"rules {other} and {rule.name} both match layer {layer.name!r}")
            matched[layer.index] = (rule, layer)
    return matched


def _check_matched(table: LayerTable, rules: Rules) -> None:
    for rule in rules.rules:
        if not any(rule.matches(layer, table) for layer in table):
            kinds = ", ".join(sorted({layer.kind for layer in table}))
            raise ValueError(
                f"rule {rule.name} matches nothing in this network, which has the kinds of layers: "
                f'{kinds or "none"}; pass on_unmatched="ignore" to go on without it, or leave the rule out'
            )


def _check_covered(traced: Traced, rules: Rules, matched: dict[int, Any]) -> None:
    covering = [rule.name for rule in rules.rules if rule.covers_activations or rule.is_propagation]
    left = [
        f"{layer.name} ({layer.kind})"
        for layer in traced.table
        if layer.kind not in (*LINEAR_KINDS, STATISTIC) and layer.index not in matched
    ]
    left += [f"the call {o.what!r} (a program that cannot be looked into)" for o in traced.obstacles]
    if covering and left:
        more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        raise ValueError(
            f"{' | '.join(covering)} says nothing of {len(left)} of this network's non-linear steps: "
            f"{', '.join(left[:_MOST_NAMED])}{more}; "
            'pass on_uncovered="gradient" to keep their ordinary derivative'
        )


def _check_ways(traced: Traced, rules: Rules, matched: dict[int, tuple[Rule, Layer]]) -> None:
    """Attributions of pixels, of one rule, cannot be added to what other rules send back to the pixels."""
    sending = [rule.name for rule in rules.rules if rule.sends_attributions]
    if not sending:
        return
    if not any(rule.sends_attributions for rule, _ in matched.values()):
        raise ValueError(
            f"rule {sending[0]} is for the first linear layer, and none of this network takes pixels that "
            "were only moved, scaled and shifted; take a composite without it, such as lrp_epsilon()"
        )
    others = [
        draft.step.kind
        for index, draft in enumerate(traced.drafts)
        if draft.is_first and not (index in matched and matched[index][0].sends_attributions)
    ]
    others += ways_around(traced.flat.steps, traced.drafts)
    if others:
        raise ValueError(
            f"rule {sending[0]} is for the first linear layer, and in this network the images also go to: "
            f"{', '.join(dict.fromkeys(others))}; take a composite without it, such as lrp_epsilon()"
        )


def _changes(traced: Traced, matched: dict[int, tuple[Rule, Layer]]) -> dict[Path, Change]:
    """What takes the place of the matched layers; in a scan, one change stands for all steps."""
    of_place: dict[Path, list[int]] = {}
    for index, draft in enumerate(traced.drafts):
        of_place.setdefault(traced.flat.at_every_step(draft.steps[-1].path), []).append(index)
    changes: dict[Path, Change] = {}
    for place, indices in of_place.items():
        found = [matched[index] for index in indices if index in matched]
        if not found:
            continue
        rule, layer = found[0]
        is_same = {(other.name, at_step.kind) for other, at_step in found} == {(rule.name, layer.kind)}
        if not is_same or len(found) < len(indices):
            raise ValueError(
                f"rule {rule.name} matches layer {layer.name!r} at some steps of a scan and not at others, "
                "which run one program; write the steps out, or leave the rule out"
            )
        changes[place] = _change(rule, layer, traced.drafts[layer.index], traced)
    return changes


def _change(rule: Rule, layer: Layer, draft: Draft, traced: Traced) -> Change:
    """The steps of a layer as one function with a derivative of its own."""
    inputs, holds = _inputs_of(draft.steps, traced)
    operand = inputs.index(draft.entering)
    is_taken_apart = rule.is_propagation and draft.kind in ("conv", "dense")
    step = Step(
        draft.step.kind,
        draft.step.params,
        operand,
        tuple(k for k, v in enumerate(inputs) if v.depends_on_images),
        tuple(draft.batches.get(v) for v in (*inputs, draft.leaving)),
        (lambda xs: parts_of(draft, inputs, xs)) if is_taken_apart else None,
    )

    def original(*values):
        return run(draft.steps, dict(zip(inputs, values, strict=True)))[draft.leaving]

    def replaced(of_last_step, inputs_of_last_step, held):
        ruled = jax.custom_vjp(original)

        def forward(*xs):
            return original(*xs), xs

        def backward(xs, cotangent):
            return tuple(rule.backward(step, layer, original, xs, cotangent))

        ruled.defvjp(forward, backward)
        return ruled(*held)

    return Change(replaced, tuple(holds))


def _inputs_of(steps: Sequence[Equation], traced: Traced) -> tuple[list[Value], list[Operand]]:
    """The values that enter some steps, without constants, and where each of them is an operand."""
    made = {out for step in steps for out in step.outputs}
    inputs: list[Value] = []
    holds: list[Operand] = []
    for step in steps:
        for k, value in enumerate(step.inputs):
            if value not in made and not is_literal(value) and value not in inputs:
                inputs.append(value)
                holds.append((traced.flat.at_every_step(step.path), k))
    return inputs, holds


def _relu_rule(name: str, passes: Callable[[Any, Any], Any]) -> Rule:
    def backward(step, layer, original, inputs, cotangent):
        sent: list[Any] = [None] * len(inputs)
        if layer.kind == "relu":
            arriving = cotangent
        else:
            positive = jnp.where(cotangent > 0, cotangent, jnp.zeros_like(cotangent))
            arriving = jax.vjp(original, *inputs)[1](positive)[step.operand] if name == "GUIDED" else positive
        passing = passes(_is_inside(inputs[step.operand], layer.bounds), cotangent)
        sent[step.operand] = jnp.where(passing, arriving, jnp.zeros_like(arriving))
        return sent

    return Rule(name, lambda layer, table: layer.bounds is not None, backward, covers_activations=True)


def _is_inside(x: Any, bounds: tuple[float, float] | None) -> Any:
    assert bounds is not None
    low, high = bounds
    return x > low if high == float("inf") else (x > low) & (x < high)


def _resampled_stride(step, layer, original, inputs, cotangent):
    lhs, rhs, *_ = inputs
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
    return lhs_cotangent, *jax.vjp(original, *inputs)[1](cotangent)[1:]


def _resampled_pool(step, layer, original, inputs, cotangent):
    x = inputs[step.operand]
    if step.kind in ("reduce_sum", "reduce_window_sum"):
        # The barrier keeps XLA from computing it, slowly, when it compiles.
        ones = jax.lax.optimization_barrier(jnp.ones_like(x))
        totals = original(*(ones if n == step.operand else other for n, other in enumerate(inputs)))
    else:
        totals = 1
    sent = list(jax.vjp(original, *inputs)[1](cotangent)) if len(inputs) > 1 else [None]
    sent[step.operand] = send_resized(layer.pooled, totals, cotangent, x.shape, x.dtype)
    return sent


GUIDED = _relu_rule("GUIDED", lambda is_inside, g: is_inside & (g > 0))
DECONVNET = _relu_rule("DECONVNET", lambda is_inside, g: g > 0)
RESAMPLED_STRIDE = Rule(
    "RESAMPLED_STRIDE", lambda layer, table: any(s > 1 for s in layer.strides), _resampled_stride
)
RESAMPLED_POOL = Rule("RESAMPLED_POOL", lambda layer, table: bool(layer.pooled), _resampled_pool)
