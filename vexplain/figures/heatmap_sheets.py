"""Sheets of heatmaps: images in rows, methods in columns, each map over its image."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vexplain.catalog import title_of
from vexplain.evaluation import SIGNS, as_heatmaps
from vexplain.figures.explanation_sheets import GAP, IMAGE, MARGIN, heat_scale
from vexplain.figures.images import checked_images, checked_maps, outline, overlay, pixels, show
from vexplain.figures.sheet import place, wrap, write
from vexplain.figures.style import INK, MUTED, context, new_figure
from vexplain.typing import AnyArray

NAMES, HEADER, FOOT = 1.15, 0.62, 0.5  # inches; NAMES only where rows have names


@context()
def heatmap_sheet(
    images: AnyArray,
    maps: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    masks: AnyArray | None = None,
) -> Figure:
    """Returns a sheet, a row for each image: the image, and the map of each method over it.

    Args:
        images: (batch, height, width, 1 or 3) in [0, 1].
        maps: what methods returned, by their name in the catalog or another one: heatmaps (batch, height,
            width), or signed attributions (batch, height, width, channels), of which the positive part is
            shown. Each map is scaled to [0, 1].
        names: of the rows, such as the class of each image.
        masks: (batch, height, width) in [0, 1], a true region, outlined on the image.

    Raises:
        ValueError: no map; shapes or numbers of images, maps, names or masks that do not fit each other; a
            map that is not finite.

    Example:
        >>> images = np.random.default_rng(0).uniform(size=(2, 6, 5, 3))
        >>> figure = heatmap_sheet(images, {"gradient": images - 0.5, "mine": images[..., 0]})
        >>> [text.get_text().strip() for text in figure.texts][:3]
        ['image', 'gradient', 'mine']
    """
    shown = checked_images(images)
    if not maps:
        raise ValueError('maps is empty: give at least one, {"grad_cam": vx.grad_cam(...)}')
    if names is not None and len(names) != len(shown):
        raise ValueError(f"names has {len(names)} names, but there are {len(shown)} images: one each")
    columns = {name: _heatmaps(name, found, shown) for name, found in maps.items()}
    regions = None if masks is None else checked_maps(masks, shown, name="masks")
    tall = IMAGE * min(1.6, shown.shape[1] / shown.shape[2])
    first = MARGIN + (NAMES if names is not None else 0)
    lefts = [first + n * (IMAGE + GAP) for n in range(1 + len(columns))]
    height = HEADER + len(shown) * (tall + GAP) - GAP + FOOT
    figure = new_figure(max(lefts[-1] + IMAGE + MARGIN, MARGIN + 2.2), height)
    for left, title in zip(lefts, ["image", *map(title_of, columns)], strict=True):
        text = write(figure, left, HEADER - 0.06, title, fontsize=8.5, color=MUTED, va="bottom")
        wrap(text, IMAGE + 0.04, num_lines=3)
    for n, image in enumerate(shown):
        top = HEADER + n * (tall + GAP)
        if names is not None:
            text = write(figure, MARGIN, top + 0.03, names[n], fontsize=9, color=INK)
            wrap(text, NAMES - 0.12, num_lines=3)
        axes = [place(figure, left, top, IMAGE, tall) for left in lefts]
        show(axes[0], pixels(image))
        if regions is not None:
            outline(axes[0], regions[n])
        for heatmaps, place_of_map in zip(columns.values(), axes[1:], strict=True):
            show(place_of_map, overlay(image, heatmaps[n]))
    heat_scale(figure, first)
    return figure


def _heatmaps(name: str, found: Any, images: np.ndarray) -> np.ndarray:
    if found.ndim not in (3, 4) or found.shape[:3] != images.shape[:3]:
        raise ValueError(
            f"maps[{name!r}] has shape {found.shape}, but there are {len(images)} images: expected heatmaps "
            f"{images.shape[:3]} or attributions {images.shape[:3]} and channels"
        )
    if bad := np.flatnonzero(~np.isfinite(np.asarray(found)).all(tuple(range(1, found.ndim)))).tolist():
        raise ValueError(f"maps[{name!r}] holds NaN or infinity in images {bad}: expected finite numbers")
    return checked_maps(as_heatmaps(jnp.asarray(found), SIGNS[0]), images, name=f"maps[{name!r}]")
