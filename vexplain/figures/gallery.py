"""The part of a report that people click through: a card for each image, and a sheet for each class.

A browser draws the cards from JSON in the page, a screenful at a time, and loads the pictures of those that
are seen: thousands of images open as fast as ten. The pictures are files beside the page, or inside it where
it is to be mailed. A heatmap is kept as a gray picture, and colored and laid over its image by the browser.
"""

import dataclasses
import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from vexplain.figures.images import pixels
from vexplain.figures.style import HEAT, MISSING
from vexplain.relevance import FeatureView
from vexplain.typing import Float, Shaped

R_IN_WORDS = (
    "r says how much a feature explains this image: its share of the relevance weights of the class, times "
    "its response to this image. It is large where the feature is both relevant for the class and present in "
    "the image. The left picture shows where, the right one what the feature looks like: the average of the "
    "image parts with its strongest response."
)
AVERAGE, CROP, NUM_CROPS = 160, 96, 9  # pixels of the pictures of a sheet; parts of images beside the average
_SHARP = 64  # images of at most so many pixels a side are enlarged to squares, not smoothed
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclasses.dataclass(frozen=True)
class Card:
    """An image, what the network made of it, and why. Files are relative to the folder of the page.

    Attributes:
        name: of the image; any text.
        predicted: name of the predicted class.
        probability: of that class, in [0, 1].
        image: file of the image as the network saw it.
        maps: file of the heatmap by method, gray pictures of the same size.
        truth: name of the true class; `None` where it is not known.
        features: name of each feature that explains the image, as the sheet of the predicted class has it,
            and its r, the largest first.
        feature_maps: file of the maps of these features, gray pictures side by side; "" where there is none.
        labels: names of all labels that are predicted, where an image may have several.
    """

    name: str
    predicted: str
    probability: float
    image: str
    maps: Mapping[str, str]
    truth: str | None = None
    features: Sequence[tuple[str, float]] = ()
    feature_maps: str = ""
    labels: Sequence[str] = ()


class SheetRow(NamedTuple):
    """A relevant feature of a class."""

    name: str  # layer[channel]
    weight: float
    sees: str  # how large a part of the image
    num_crops: int
    shares: Sequence[float] = ()  # of the crops, that each aligned average is of


@dataclasses.dataclass(frozen=True)
class Sheet:
    """What the relevant features of a class look like, the largest weight first.

    Files are relative to the folder of the page, see `sheet_pictures`.
    """

    rows: Sequence[SheetRow]
    averages: str
    crops: str


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The cards and sheets of a report.

    Attributes:
        cards: the first ones are seen first.
        sheets: by name of the class.
        image_size: (height, width) of the images in pixels.
        paragraphs: above the cards.
        class_paragraphs: above the sheets.
    """

    cards: Sequence[Card]
    sheets: Mapping[str, Sheet]
    image_size: tuple[int, int]
    paragraphs: Sequence[str] = ()
    class_paragraphs: Sequence[str] = ()


def gallery_json(gallery: Gallery, folder: Path, *, is_single_file: bool) -> str:
    """Returns what the script of the page reads: JSON that may stand inside of a script element.

    Args:
        gallery: its content.
        folder: of the page.
        is_single_file: pictures are inside, as `data:` addresses.

    Raises:
        ValueError: a feature of a card that is not in the sheet of its class.
        FileNotFoundError: a picture is not there, where it would be inside of the page.
    """

    def source(file: str) -> str:
        if not is_single_file or not file:
            return file
        path = folder / file
        return f"data:{_MEDIA[path.suffix]};base64,{b64encode(path.read_bytes()).decode()}"

    names = [card.predicted for card in gallery.cards] + [
        c.truth for c in gallery.cards if c.truth is not None
    ]
    classes = {name: n for n, name in enumerate(dict.fromkeys([*gallery.sheets, *names]))}
    methods = list(dict.fromkeys(method for card in gallery.cards for method in card.maps))
    places = {name: {row.name: n for n, row in enumerate(s.rows)} for name, s in gallery.sheets.items()}
    cards = []
    for card in gallery.cards:
        known = places.get(card.predicted, {})
        if unknown := [name for name, _ in card.features if name not in known]:
            raise ValueError(f"card {card.name!r}: feature {unknown[0]!r} is not in the sheet of its class")
        cards.append(
            [
                card.name,
                classes[card.predicted],
                -1 if card.truth is None else classes[card.truth],
                card.probability,
                source(card.image),
                [source(card.maps[method]) if method in card.maps else 0 for method in methods],
                source(card.feature_maps),
                [[known[name], r] for name, r in card.features],
                list(card.labels),
            ]
        )
    height, width = gallery.image_size
    content = {
        "classes": list(classes),
        "methods": methods,
        "aspect": width / height,
        "is_sharp": max(height, width) <= _SHARP,
        "crops": NUM_CROPS,
        "words": R_IN_WORDS,
        "sheets": {classes[name]: _sheet(sheet, source) for name, sheet in gallery.sheets.items()},
        "cards": cards,
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":  # no name ends the element, or begins a comment in it
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _sheet(sheet: Sheet, source: Any) -> dict[str, Any]:
    total = math.fsum(abs(row.weight) for row in sheet.rows) or 1.0
    return {
        "averages": source(sheet.averages),
        "crops": source(sheet.crops),
        "counts": [row.num_crops for row in sheet.rows],
        "shares": [list(row.shares) for row in sheet.rows],
        "features": [[row.name, row.weight, abs(row.weight) / total, row.sees] for row in sheet.rows],
    }


def sheet_rows(views: Sequence[FeatureView]) -> tuple[SheetRow, ...]:
    """Returns the rows of the sheet of one class, from what `interpret` returned for it."""
    return tuple(
        SheetRow(
            name=f"{v.layer}[{v.channel}]",
            weight=float(v.weight),
            sees=_sees(v),
            num_crops=min(len(v.crops), NUM_CROPS),
            shares=tuple(float(aligned.share) for aligned in v.aligned),
        )
        for v in views
    )


def sheet_pictures(
    views: Sequence[FeatureView],
) -> tuple[Shaped[np.ndarray, "_ _ 3"], Shaped[np.ndarray, "_ _ 3"]]:
    """Returns the average images of features and their crops, a row for each feature; uint8.

    An average has 160 × 160 pixels: in a row those of the aligned crops, the largest share first, then that
    of the crops as they are. A crop has 96 × 96, nine of them a row. Pixels outside of the image are light
    gray. Few pixels are enlarged to squares.

    Example:
        >>> crops, none = np.full((4, 5, 5, 3), 0.5), np.zeros(4)
        >>> view = FeatureView("cat", "conv_1", 2, 1.5, crops[0], crops, none, none, False)
        >>> [picture.shape for picture in sheet_pictures([view, view])]
        [(320, 160, 3), (192, 864, 3)]
    """
    averages = [[*(aligned.image for aligned in view.aligned), view.average] for view in views]
    most = max(map(len, averages))
    crops = [view.crops[:NUM_CROPS] for view in views]
    return (
        np.concatenate([_strip(images, most, AVERAGE) for images in averages]),
        np.concatenate([_strip(images, NUM_CROPS, CROP) for images in crops]),
    )


def heat_tables() -> list[str]:
    """Returns red, green and blue of the colors of heat 0 to 1, as `tableValues` of an SVG filter."""
    colors = np.asarray(HEAT(np.linspace(0.25, 1, 33)))[:, :3]
    return [" ".join(f"{value:.3f}" for value in channel) for channel in colors.T]


def _sees(view: FeatureView) -> str:
    if view.sees_whole_image:
        return "sees the whole image"
    height, width = view.receptive_field or view.average.shape[:2]
    return f"sees {height} × {width} px"


def _strip(images: Sequence[np.ndarray] | np.ndarray, count: int, side: int) -> np.ndarray:
    """Images beside each other, with light gray squares up to a number of them."""
    blank = np.broadcast_to(_bytes(np.array(to_rgb(MISSING))), (side, side, 3))
    squares = [_square(image, side) for image in images]
    return np.concatenate([*squares, *[blank] * (count - len(squares))], axis=1)


def _square(image: np.ndarray, side: int) -> Shaped[np.ndarray, "_ _ 3"]:
    """The image in the middle of a light gray square, as large as fits."""
    shown = Image.fromarray(_bytes(pixels(image)))
    scale = side / max(shown.size)
    width, height = (max(1, round(n * scale)) for n in shown.size)
    how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (side, side), MISSING)
    square.paste(shown.resize((width, height), how), ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)


def _bytes(values: Float[np.ndarray, "..."]) -> np.ndarray:
    return np.round(255 * values).astype(np.uint8)
