"""The methods that are compared, under the names of their papers, and the controls they must beat.

A method is any function `(variables, images, targets, keys) -> attributions`, with one key an image, so that
what it draws for an image does not depend on the batch; one's own stands beside these in the same dict.

Class activation maps need a layer. The published convention is the last convolution after its ReLU:
`attribution.cam_layer(table)` says which that is. `hindsight_methods` makes them for every layer, so that
the best can be found afterwards with the truth at hand; nobody who explains a network has that choice.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from vexplain.attribution import (
    cam_layer,
    center_gaussian,
    class_score,
    deconvnet,
    grad_cam,
    grad_cam_plus_plus,
    gradient,
    guided_backprop,
    guided_grad_cam,
    guided_grad_cam_plus_plus,
    input_x_gradient,
    integrated_gradients,
    layer_cam,
    object_segmentation,
    occlusion,
    random_map,
    smooth_grad,
    sobel_edges,
    upsampled_activation,
)
from vexplain.relevance import Relevance, explain, relevant_evidence
from vexplain.relevance.recipe import OPTIONS, check_options
from vexplain.transforms import LayerTable
from vexplain.transforms.nonlinearities import ACTIVATION_KINDS
from vexplain.typing import AnyArray, ApplyFn, Images, ScoreFn

Method = Callable[..., Any]  # (variables, images, targets, keys) -> (batch, height, width[, channels])
OURS = "relevant features (paper)"
OWN = "relevant evidence (ours)"
CONTROLS = ("random map", "Sobel edges", "Gaussian at the center", "object segmentation")
_CAMS = {
    "Grad-CAM": grad_cam,
    "Grad-CAM++": grad_cam_plus_plus,
    "LayerCAM": layer_cam,
    "upsampled activation": upsampled_activation,
}
_Pixels = int | tuple[int, int]


def methods_for(
    apply: ApplyFn,
    table: LayerTable,
    relevance: Relevance,
    *,
    names: Sequence[str] | None = None,
    num_samples: int = 25,
    noise_level: float = 0.15,
    num_steps: int = 25,
    window: _Pixels | None = None,
    stride: _Pixels | None = None,
    baseline: float | AnyArray = 0.0,
    **options: Any,
) -> dict[str, Method]:
    """Returns the paper's method, ours, all of their rivals, and the controls, by name.

    The class activation maps are those of `attribution.cam_layer(table)`. Nothing here looks at the values
    of the relevance: it may be called inside `jax.jit`, with a relevance that is traced.

    Args:
        apply: the network.
        table: its layers.
        relevance: its relevant features.
        names: some methods, in this order; all where left out.
        num_samples: noisy copies of an image for SmoothGrad. The authors take 50.
        noise_level: of SmoothGrad, as a share of the range of the image.
        num_steps: of integrated gradients, by the midpoint rule.
        window: (height, width) in pixels that occlusion covers; an eighth of the image where left out.
        stride: from a window to the next; half a window where left out.
        baseline: what occlusion covers a window with, and where integrated gradients begin.
        **options: of `explain`: `num_features`, `rules`, `on_uncovered`, `seed`, `combination`.
            `on_uncovered` holds for deconvnet and what is guided too, which are the gradient where there is
            no ReLU.

    Raises:
        TypeError: an option that `explain` does not have.
        ValueError: an unknown name, an option of another value than `explain` takes, or a network without
            convolutions.
    """
    _check_options(options)
    check_options(**options)
    score, layer = class_score(apply), cam_layer(table)
    rules_options = {"on_uncovered": options.get("on_uncovered", "raise"), "on_unmatched": "ignore"}

    def recipe(variables, images, targets, keys):
        return explain(apply, variables, images, relevance, targets=targets, **options).heatmaps

    def evidence(variables, images, targets, keys):
        return relevant_evidence(apply, variables, images, relevance, targets=targets).heatmaps

    every = {
        OURS: recipe,
        OWN: evidence,
        "gradient": _plain(gradient, score),
        "input × gradient": _plain(input_x_gradient, score),
        "SmoothGrad": _drawing(smooth_grad, score, num_samples=num_samples, noise_level=noise_level),
        "integrated gradients": _plain(integrated_gradients, score, num_steps=num_steps, baseline=baseline),
        "deconvnet": _plain(deconvnet, score, **rules_options),
        "guided backprop": _plain(guided_backprop, score, **rules_options),
        **{name: _plain(cam, score, layer=layer) for name, cam in _CAMS.items()},
        "guided Grad-CAM": _plain(guided_grad_cam, score, layer=layer, **rules_options),
        "guided Grad-CAM++": _plain(guided_grad_cam_plus_plus, score, layer=layer, **rules_options),
        "occlusion": _occlusion(score, window, stride, baseline),
        **_controls(),
    }
    return every if names is None else {name: every[name] for name in _known(names, every)}


def hindsight_methods(apply: ApplyFn, table: LayerTable) -> dict[str, Method]:
    """Returns the class activation maps of every layer they could be of, named `"Grad-CAM @ relu_1"`.

    The best of them is found with the truth at hand, which flatters it: a row of its own in a table, beside
    the maps of the customary layer.

    Args:
        apply: the network.
        table: its layers. All activation functions and poolings with more than one position are taken.

    Raises:
        ValueError: there is no such layer.
    """
    layers = [
        row.name
        for row in table
        if (row.kind == "pool" or row.kind in ACTIVATION_KINDS)
        and row.inside is None
        and row.batch_axis is not None
        and row.num_positions > 1
    ]
    if not layers:
        raise ValueError(f"table: no activation function or pooling has spatial axes:\n{table}")
    score = class_score(apply)
    return {
        f"{name} @ {layer}": _plain(cam, score, layer=layer)
        for name, cam in _CAMS.items()
        for layer in layers
    }


def _plain(attribution: Callable[..., Any], score: ScoreFn, **options: Any) -> Method:
    return lambda variables, images, targets, keys: attribution(score, variables, images, targets, **options)


def _drawing(attribution: Callable[..., Any], score: ScoreFn, **options: Any) -> Method:
    return lambda variables, images, targets, keys: attribution(
        score, variables, images, targets, key=keys, **options
    )


def _occlusion(score: ScoreFn, window: _Pixels | None, stride: _Pixels | None, baseline: Any) -> Method:
    def method(variables, images, targets, keys):
        covered = _eighth(images) if window is None else window
        both = (covered, covered) if isinstance(covered, int) else covered
        step = (max(both[0] // 2, 1), max(both[1] // 2, 1)) if stride is None else stride
        options = {"window": covered, "stride": step, "baseline": baseline}
        return occlusion(score, variables, images, targets, **options)

    return method


def _eighth(images: Images) -> tuple[int, int]:
    return max(images.shape[1] // 8, 1), max(images.shape[2] // 8, 1)


def _controls() -> dict[str, Method]:
    return {
        "random map": lambda v, images, t, keys: jax.vmap(random_map)(keys, images[:, None])[:, 0],
        "Sobel edges": lambda v, images, t, keys: sobel_edges(images),
        "Gaussian at the center": lambda v, images, t, keys: center_gaussian(images),
        "object segmentation": lambda v, images, t, keys: object_segmentation(images),
    }


def _known(names: Sequence[str], every: Mapping[str, Method]) -> Sequence[str]:
    for name in names:
        if name not in every:
            raise ValueError(
                f"names: no method {name!r}{_meant(name, every)}: expected some of {list(every)}"
            )
    return names


def _check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            raise TypeError(
                f"options: explain has no {name!r}: expected some of {OPTIONS}{_meant(name, OPTIONS)}"
            )


def _meant(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
