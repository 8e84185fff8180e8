"""Heatmaps of a network with its strided convolutions treated in several ways, and what is measured of them.

STRIDED   guided backpropagation of a layer's own activation, A: what the gradient of ‖A‖²/2 sends back
RULE      the same under RESAMPLED_STRIDE
POOLED    the same under RESAMPLED_STRIDE and RESAMPLED_POOL (*ours*)
STRIDE_1  the same network, with the same weights: each convolution of stride s at stride 1, then max pooling
          over s × s, which keeps all later sizes. (Subsampling by s in place of max pooling would be the
          strided network itself, gradient included.)
BLURRED   the heatmap of STRIDED under a box blur as large as the period of its grid, scaled to [0, 1] again
SIGNED    as BLURRED, but blurred before its negative values are cut. Under one strided convolution, next to
          the pixels, the rule is nearly this: enlarging by nearest neighbors is spreading over the lattice,
          then a box, and a box commutes with the kernel.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from vexplain import evaluation
from vexplain.attribution import normalize_heatmaps, positive_heatmaps
from vexplain.classifiers.fast_gradients import convolution, max_pool
from vexplain.transforms import (
    GUIDED,
    RESAMPLED_POOL,
    RESAMPLED_STRIDE,
    LayerTable,
    Rule,
    Rules,
    read,
    with_rules,
)
from vexplain.typing import ApplyFn, Array, Attributions, Float, Heatmaps, Images, Logits, Masks, Variables

STRIDED, RULE, STRIDE_1 = "strided", "with the rule", "at stride 1"
POOLED = "with the rule, pooling too"
BLURRED, SIGNED = "strided, heatmap blurred", "strided, blurred before the cut"
TREATMENTS = (STRIDED, RULE, POOLED, STRIDE_1, BLURRED, SIGNED)
RULES = {  # of a network as it is
    STRIDED: GUIDED,
    RULE: GUIDED | RESAMPLED_STRIDE,
    POOLED: GUIDED | RESAMPLED_STRIDE | RESAMPLED_POOL,
}


class StridedFlowerNet(nnx.Module):
    """FlowerNet with the first convolution of AlexNet: 11×11, stride 4 in place of pooling.

    Args:
        num_classes: of the scores.
        image_size: height and width in pixels, a multiple of 8.
        widths: channels of the two convolutions and of the dense layer.
        rngs: of the weights.
    """

    def __init__(self, num_classes: int, *, image_size: int, widths: tuple[int, int, int], rngs: nnx.Rngs):
        first, second, hidden = widths
        self.conv1 = nnx.Conv(3, first, (11, 11), strides=4, rngs=rngs)
        self.conv2 = nnx.Conv(first, second, (5, 5), conv_general_dilated=convolution, rngs=rngs)
        self.dense = nnx.Linear((image_size // 8) ** 2 * second, hidden, rngs=rngs)
        self.scores = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        x = jax.nn.relu(self.conv1(jnp.asarray(images) - 0.5))
        x = max_pool(jax.nn.relu(self.conv2(x)))
        x = jax.nn.relu(self.dense(x.reshape(len(x), -1)))
        return self.scores(x)


def at_stride_one(module: nnx.Module) -> nnx.Module:
    """Returns a copy of a network whose strided convolutions have stride 1 and max pooling by the stride.

    Args:
        module: any network of `nnx.Conv`.
    """
    copy = nnx.clone(module)
    for _, part in nnx.iter_graph(copy):
        if isinstance(part, nnx.Conv) and np.max(part.strides or 1) > 1:
            part.conv_general_dilated = pooled_convolution
    return copy


def pooled_convolution(inputs, kernel, strides, padding, **options):
    """Returns a convolution at stride 1 and the maximum over windows of the size of its strides.

    Window o begins where the strided convolution has its position o, so that the shape is the same; the last
    one may stick out.

    Args:
        inputs: (batch, height, width, channels).
        kernel: (rows, columns, channels, filters).
        strides: of the convolution that this stands for.
        padding: of that convolution.
        **options: of `lax.conv_general_dilated`.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], kernel.shape[:2], strides, padding)
    dense = lax.conv_general_dilated(inputs, kernel, (1, 1), padding, **options)
    window = (1, *strides, 1)
    ends = [-n % s for n, s in zip(dense.shape[1:3], strides, strict=True)]
    return lax.reduce_window(
        dense, -jnp.inf, lax.max, window, window, ((0, 0), *((0, end) for end in ends), (0, 0))
    )


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def layer_attributions(
    apply: ApplyFn, variables: Variables, images: Images, names: tuple[str, ...], rules: Rule | Rules
) -> Float[Array, "layers batch height width channels"]:
    """Returns what the activation of each layer sends back to the pixels through guided ReLUs.

    Args:
        apply: the network.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        names: of the layers.
        rules: backward rules; one that matches nothing changes nothing.
    """
    reading = with_rules(lambda v, x: read(apply, names)(v, x)[1], rules, on_unmatched="ignore")
    found, send = jax.vjp(lambda x: reading(variables, x), images)

    def sent(pick):
        return send({name: pick[n] * found[name] for n, name in enumerate(names)})[0]

    return jax.vmap(sent)(jnp.eye(len(names)))


@functools.partial(jax.jit, static_argnums=1)
def _treated(sent, period):
    strided, *others = sent
    plain = positive_heatmaps(strided)
    signed = jnp.moveaxis(box_blur(jnp.moveaxis(strided, -1, 1), period), 1, -1)
    maps = (plain, *map(positive_heatmaps, others))
    return (*maps, normalize_heatmaps(box_blur(plain, period)), positive_heatmaps(signed))


def treated(sent: Sequence[Attributions], period: int) -> dict[str, Heatmaps]:
    """Returns the heatmaps of one layer by treatment.

    Args:
        sent: signed maps, as STRIDED, RULE, POOLED and STRIDE_1 have them.
        period: side of the box, in pixels.
    """
    return dict(zip(TREATMENTS, _treated(tuple(sent), period), strict=True))


def box_blur(maps: Float[Array, "*batch height width"], size: int) -> Float[Array, "*batch height width"]:
    """Returns means over windows of size × size pixels; the border is mirrored.

    Args:
        maps: (..., height, width).
        size: of the window; an even one reaches a pixel farther up and left.
    """

    def matrix(length):
        mirrored = np.pad(np.eye(length), ((size // 2, (size - 1) // 2), (0, 0)), mode="symmetric")
        return np.stack([mirrored[n : n + length] for n in range(size)]).mean(0).astype(np.float32)

    rows, columns = (matrix(n) for n in maps.shape[-2:])
    return jnp.einsum("yh,...hw,xw->...yx", rows, maps, columns, precision="highest")


def measures(
    maps: Mapping[str, Heatmaps], period: int, masks: Masks | None = None
) -> dict[str, dict[str, Float[Array, " batch"]]]:
    """Returns what is measured of each image's heatmap, by treatment.

    Args:
        maps: what `treated` returned.
        period: of the grid, in pixels.
        masks: (batch, height, width), the true regions; without them only the spectra are measured.
    """
    found = _measures(jnp.stack(list(maps.values())), maps[RULE], period, masks)
    return {name: {key: values[n] for key, values in found.items()} for n, name in enumerate(maps)}


@functools.partial(jax.jit, static_argnums=2)
def _measures(maps, fixed, period, masks):
    """All treatments at once, (treatments, batch, height, width): one program in place of five."""
    shape, flat = maps.shape[:2], maps.reshape(-1, *maps.shape[2:])
    repeated = jnp.broadcast_to(fixed, maps.shape).reshape(flat.shape)
    found = {
        "log_energy": jnp.log(evaluation.stride_artifact_energy(flat, period)),
        "share": evaluation.stride_artifact_share(flat, period),
        "detail": evaluation.fine_detail_share(flat, period),
        "likeness": _correlation(flat, repeated),
    }
    if masks is not None:
        truth = jnp.broadcast_to(masks, maps.shape).reshape(flat.shape)
        curve = evaluation.iou_curve(flat, truth)
        found |= {"area": evaluation.iou_area(curve), "best": evaluation.best_iou(curve)}
        found["edges"] = evaluation.edge_correlation(flat, truth)
    return {key: values.reshape(shape) for key, values in found.items()}


def _correlation(a: Heatmaps, b: Heatmaps) -> Float[Array, " batch"]:
    a, b = (v - v.mean((1, 2), keepdims=True) for v in (a, b))
    scale = jnp.sqrt((a**2).sum((1, 2)) * (b**2).sum((1, 2)))
    return (a * b).sum((1, 2)) / jnp.where(scale > 0, scale, 1)


def grid_period(table: LayerTable, name: str) -> int:
    """Returns the period, in pixels, of the grid that the strided convolutions up to a layer leave.

    Args:
        table: the layers of the network.
        name: of the layer.

    Raises:
        ValueError: there is no strided convolution before it.
    """
    names = [row.name for row in table]
    before = table.layers[: names.index(name)]
    jumps = [round(row.fields[0].jump) for row in before if max(row.strides or (1,)) > 1]
    if not jumps:
        raise ValueError(f"layer {name!r} comes before any strided convolution: it has no grid to measure")
    return max(jumps)


def last_of_each_part(table: LayerTable) -> tuple[str, ...]:
    """Returns the names of the ReLUs on maps, of those in one named part of the network the last.

    Args:
        table: the layers of the network.
    """
    rows = [row for row in table if row.kind == "relu" and len(row.shape) == 4]
    last: dict[str, Any] = {row.name.split("/")[0]: row.name for row in rows}
    return tuple(last.values())


def summary(values: Sequence[Float[Array, " batch"]] | np.ndarray) -> tuple[float, float]:
    """Returns mean and standard error of one number an image.

    Args:
        values: of all images.
    """
    numbers = np.asarray(values, np.float64)
    return float(numbers.mean()), float(numbers.std(ddof=1) / np.sqrt(len(numbers)))
