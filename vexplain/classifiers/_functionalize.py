"""A Flax NNX module as a pure function and its variables, which the rest of the library takes."""

from typing import Any

from flax import nnx

from vexplain.typing import ApplyFn, Variables


def functionalize(module: nnx.Module) -> tuple[ApplyFn, Variables]:
    """Returns `apply(variables, images) -> logits` and the variables of a module, in evaluation mode.

    Dropout is off and normalization uses its running averages. Two modules of the same architecture give
    functions that compare equal, so that they share what is compiled.

    Args:
        module: any NNX module that maps images to logits. It is not changed.

    Example:
        >>> import jax.numpy as jnp
        >>> from vexplain.classifiers import FlowerNet
        >>> apply, variables = functionalize(FlowerNet(6, image_size=16, widths=(4, 5, 7), rngs=nnx.Rngs(0)))
        >>> apply(variables, jnp.ones((2, 16, 16, 3))).shape
        (2, 6)
    """
    evaluating = nnx.view(module, raise_if_not_found=False, deterministic=True, use_running_average=True)
    graph, random, state = nnx.split(evaluating, nnx.RngState, ...)
    return _Apply(graph, random), nnx.to_pure_dict(state)


class _Apply:
    """Calls the module of a graph and variables."""

    def __init__(self, graph: Any, random: Any):
        self.graph, self.random = graph, random

    def __call__(self, variables: Variables, images: Any) -> Any:
        return nnx.merge(self.graph, self.random, variables, copy=True)(images)

    def __hash__(self) -> int:
        return hash(self.graph)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Apply) and self.graph == other.graph
