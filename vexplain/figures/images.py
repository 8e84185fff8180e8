"""Images and heatmaps as pixels, and how they are put on axes.

Pixels that do not exist (NaN) are light gray, enlarged pixels stay sharp squares, and a heatmap is laid over
a dimmed gray version of its image, so that color means heat and nothing else.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.transforms import Bbox, TransformedBbox

from vexplain._checks import check_images
from vexplain.figures.sheet import rectangle
from vexplain.figures.style import FAINT, HEAT, MISSING, Inches
from vexplain.typing import AnyArray, Float


def pixels(image: AnyArray) -> Float[np.ndarray, "height width 3"]:
    """Returns red, green and blue of an image (height, width, 1 or 3), clipped to [0, 1]; light gray for NaN.

    Raises:
        ValueError: another number of axes or channels.

    Example:
        >>> print(pixels(np.array([[[0.5], [np.nan]]])).round(2))
        [[[0.5  0.5  0.5 ]
          [0.89 0.9  0.92]]]
    """
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"image has shape {image.shape}: expected (height, width, 1 or 3); show other channels one by one"
        )
    values = np.asarray(image, np.float64)
    missing = np.isnan(values).any(-1, keepdims=True)
    return np.where(missing, to_rgb(MISSING), np.clip(values, 0, 1))


def overlay(image: AnyArray, heatmap: AnyArray) -> Float[np.ndarray, "height width 3"]:
    """Returns a heatmap over the dimmed gray image, as red, green and blue in [0, 1].

    Args:
        image: (height, width, 1 or 3) in [0, 1].
        heatmap: (height, width) in [0, 1]; 0 leaves the image visible, 1 covers it.

    Example:
        >>> print(overlay(np.ones((1, 1, 3)), np.zeros((1, 1))))
        [[[0.36 0.36 0.36]]]
    """
    gray = pixels(image) @ (0.299, 0.587, 0.114)
    base = 0.06 + 0.3 * gray[..., None]
    heat = np.clip(np.asarray(heatmap, np.float64), 0, 1)
    opacity = np.clip(2 * heat, 0, 1)[..., None]
    return (1 - opacity) * base + opacity * HEAT(0.25 + 0.75 * heat)[..., :3]


def show(
    axes: Axes, rgb: Float[np.ndarray, "height width 3"], *, frame: str = FAINT, line: float = 0.6
) -> None:
    """Puts pixels in [0, 1] on axes, enlarged to sharp squares, inside a frame `line` points thick."""
    axes.imshow(rgb, interpolation="nearest", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=line)


def tile(
    figure: Figure,
    left: Inches,
    top: Inches,
    width: Inches,
    height: Inches,
    rgb: Float[np.ndarray, "height width 3"],
    *,
    frame: str = FAINT,
    line: float = 0.6,
) -> BboxImage:
    """Returns pixels in [0, 1] drawn as `show` draws them, in the middle of a place of the figure.

    There are no axes, which take longer to make than the picture: for what nothing is drawn upon.
    """
    rows, columns = rgb.shape[:2]
    side = min(width / columns, height / rows)  # of a pixel
    left, top = left + (width - side * columns) / 2, top + (height - side * rows) / 2
    full_width, full_height = figure.get_size_inches()
    corner = (left / full_width, 1 - (top + side * rows) / full_height)
    place = Bbox.from_bounds(*corner, side * columns / full_width, side * rows / full_height)
    image = BboxImage(TransformedBbox(place, figure.transFigure), interpolation="nearest", origin="upper")
    image.set_data(rgb)
    figure.add_artist(image)
    look = {"facecolor": "none", "edgecolor": frame, "linewidth": line}
    rectangle(figure, left, top, side * columns, side * rows, **look)
    return image


def outline(axes: Axes, mask: AnyArray, *, color: str = "white", line: float = 0.8) -> None:
    """Draws the border of the region where a mask in [0, 1] is 0.5 or more, if there is one.

    The line is `line` points thick, on a dark one that keeps it visible on bright images.
    """
    inside = np.pad(np.asarray(mask, np.float64), 1)
    if inside.max() <= 0.5:
        return
    height, width = inside.shape
    corners = [np.arange(n) - 1 for n in (width, height)]
    for shade, thickness in (("#00000090", line + 0.9), (color, line)):
        axes.contour(*corners, inside, levels=[0.5], colors=[shade], linewidths=[thickness])
    axes.set(xlim=(-0.5, width - 2.5), ylim=(height - 2.5, -0.5))


def checked_images(images: AnyArray) -> np.ndarray:
    """Returns a batch of images, (batch, height, width, 1 or 3) in [0, 1], as a NumPy array.

    Raises:
        ValueError: another shape or range, or an empty batch.
    """
    check_images(images)
    if images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(
            f"images has shape {images.shape}: expected 1 image or more, with 1 channel (gray) or 3 (red, "
            "green, blue)"
        )
    return np.asarray(images, np.float32)


def checked_maps(maps: AnyArray, images: np.ndarray, *, name: str) -> np.ndarray:
    """Returns heatmaps or masks, (batch, height, width) in [0, 1], as a NumPy array.

    Raises:
        ValueError: another shape than that of the images, another range, or NaN.
    """
    if maps.shape != images.shape[:3]:
        raise ValueError(
            f"{name} has shape {maps.shape}, but there are {len(images)} images: expected {images.shape[:3]}"
        )
    values = np.asarray(maps, np.float32)
    if not (values.min() >= 0 and values.max() <= 1):  # also where NaN
        raise ValueError(
            f"{name} goes from {values.min():g} to {values.max():g}: expected [0, 1]; make heatmaps "
            "of signed or unscaled attributions by vexplain.attribution.positive_heatmaps"
        )
    return values
