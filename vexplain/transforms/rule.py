"""A backward rule as a value: what it is for, and what it sends back. `rules` puts it into a network."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_table import LayerTable
from vexplain.transforms.linear_parts import LinearParts


@dataclasses.dataclass(frozen=True)
class Step:
    """The operation of a layer, as a backward rule is handed it.

    Attributes:
        kind: the primitive's name (`conv_general_dilated`, `dot_general`, `max`, ...).
        params: its parameters.
        operand: which of the inputs of the layer is the activation that enters it.
        moving: which of the inputs depend on the images.
        batches: for each input, and last for what leaves, its batch axis, and how many positions this holds
            for each image; `None` of what does not depend on the images, and where it could not be followed;
            of a rule that `is_propagation` only.
        take_apart: of a convolution or dense layer, `(inputs) -> LinearParts`; of a rule that
            `is_propagation` only.
    """

    kind: str
    params: Any
    operand: int
    moving: tuple[int, ...] = ()
    batches: tuple[tuple[int, int] | None, ...] = ()
    take_apart: Callable[[Sequence[Any]], LinearParts] | None = None


Backward = Callable[[Step, Layer, Callable[..., Any], Sequence[Any], Any], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One backward rule: what reverse-mode differentiation sends back through the layers that it matches.

    With x the input of a layer and g what arrives at its output, where the gradient of a ReLU is g · [x > 0]:

        GUIDED            through a ReLU, g · [x > 0] · [g > 0]      Springenberg et al., 2015
        DECONVNET         through a ReLU, g · [g > 0]                Zeiler and Fergus, 2014
        RESAMPLED_STRIDE  through a strided convolution, g enlarged by nearest neighbors, then the gradient of
                          the same convolution with stride 1         Oramas et al., 2019, Section 3.3
        RESAMPLED_POOL    through a max, min, average or sum pooling, g enlarged by linear interpolation
                          between the centers of the windows, each position with the total that the gradient
                          sends back; a global pooling is left alone   this library

    Put them into a network by `with_rules(fn, GUIDED | RESAMPLED_STRIDE)`. ReLUs that are cut on both sides
    (ReLU6, hard tanh, hard sigmoid, `clip`) are guided as what they are: [x > 0] becomes [low < x < high].

    A layer is everything between the value that enters it and the value that leaves it: an activation
    function in any spelling, a normalization with its statistics, a convolution or product with its bias. A
    rule of your own is handed all of that. This one sends f(x) / x, the slope of the secant, through some:

        def secant(step, layer, original, inputs, cotangent):
            x, sent = inputs[step.operand], [None] * len(inputs)
            sent[step.operand] = cotangent * jnp.where(x == 0, 0, original(*inputs) / jnp.where(x == 0, 1, x))
            return sent

        SECANT = Rule("SECANT", lambda layer, table: layer.kind in ("relu", "gelu", "silu", "tanh"), secant)

    Attributes:
        name: for messages.
        matches: `(layer, table) -> bool`, which layers it is for; `layer.index` is the place in the table.
        backward: `(step, layer, original, inputs, cotangent) -> cotangents of the inputs`, `None` for
            zero. `original(*inputs)` is the layer itself, for instance for `jax.vjp`.
        covers_activations: it stands for a derivative of *all* activation functions; a network with
            others than it matches is refused.
        is_propagation: it stands for a derivative of all steps that are not linear: it is shown the network
            as `spans` describes it, and what no rule matches there is refused.
        sends_attributions: it sends back attributions of pixels, not what the pixels are multiplied with.
    """

    name: str
    matches: Callable[[Layer, LayerTable], bool] = dataclasses.field(repr=False)
    backward: Backward = dataclasses.field(repr=False)
    covers_activations: bool = False
    is_propagation: bool = False
    sends_attributions: bool = False

    def where(self, matches: Callable[[Layer], bool]) -> "Rule":
        """This rule for some of its layers, `rule.where(lambda layer: layer.kind == "conv")`."""
        both = lambda layer, table: self.matches(layer, table) and matches(layer)  # noqa: E731
        return dataclasses.replace(self, matches=both)

    def __or__(self, other: "Rule | Rules") -> "Rules":
        return Rules((self,)) | other


@dataclasses.dataclass(frozen=True)
class Rules:
    """Several rules, each for its own layers."""

    rules: tuple[Rule, ...]

    def __or__(self, other: "Rule | Rules") -> "Rules":
        more = (other,) if isinstance(other, Rule) else other.rules
        return Rules(tuple(dict.fromkeys((*self.rules, *more))))
