"""Convolutions inside a loop, in the one form that XLA runs fast there on a CPU.

XLA's CPU backend has a fast convolution for images with channels last and kernels (rows, columns, inputs,
filters). It brings others, such as every derivative by the images, into that form outside of loops only; here
the transpositions are written out. Averaged gradients at 64 px (jax 0.10.2, 2 shared CPU cores) become 5 to 8
times as fast for FlowerNet and 20 times for AllConvNet; an `optimization_barrier` on the weights does not
help, and a loop that is unrolled, whose program grows with its steps, becomes 5 and 16 times as fast
(`python -m benchmarks.loops --num-samples 5 --batch-size 10`).
"""

from collections.abc import Callable
from typing import Any

from jax import lax

from vexplain.transforms.interpreter import Change, evaluate
from vexplain.transforms.program import equations, trace

_KERNEL = (3, 2, 0, 1)  # filters, inputs, rows, columns: where they are in the fast form
_IMAGES = (0, 3, 1, 2)  # batch, channels, rows, columns


def fast_in_loops(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of the same values, for the body of a `lax.map`, `scan` or `fori_loop`.

    A function that computes gradients gains; the gradient of what is returned here would not.

    Args:
        fn: any traceable function of arrays.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> slope = jax.grad(lambda x: lax.conv(x, jnp.ones((1, 1, 3, 3)), (1, 1), "SAME").sum())
        >>> print(lax.map(fast_in_loops(slope), jnp.ones((2, 1, 1, 3, 3)))[1, 0, 0])
        [[4. 6. 4.]
         [6. 9. 6.]
         [4. 6. 4.]]
    """

    def body(*args):
        program = trace(fn, args)
        flat = equations(program, lambda *_: None)
        slow = [step for step in flat.steps if _is_slow(step)]
        changes = {flat.at_every_step(step.path): Change(_written_out(step.params)) for step in slow}
        return evaluate(program, args, changes)[0] if changes else fn(*args)

    return body


def _is_slow(step: Any) -> bool:
    if step.kind != "conv_general_dilated" or step.inside or len(step.inputs[0].shape) != 4:
        return False
    numbers, groups = step.params["dimension_numbers"], ("feature_group_count", "batch_group_count")
    is_fast = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == (_IMAGES, _KERNEL, _IMAGES)
    return not is_fast and all(step.params[name] == 1 for name in groups)


def _written_out(params: Any) -> Callable[..., Any]:
    numbers = params["dimension_numbers"]

    def replaced(original, inputs, held):
        images, kernel = inputs
        found = lax.conv_general_dilated(
            lax.transpose(images, _permutation(numbers.lhs_spec, _IMAGES)),
            lax.transpose(kernel, _permutation(numbers.rhs_spec, _KERNEL)),
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            lax.ConvDimensionNumbers(_IMAGES, _KERNEL, _IMAGES),
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )
        return lax.transpose(found, _permutation(_IMAGES, numbers.out_spec))

    return replaced


def _permutation(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...]:
    """For `lax.transpose`: from axes at the places `old` to axes at the places `new`."""
    return tuple(old[new.index(place)] for place in range(len(new)))
