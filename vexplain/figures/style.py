"""How figures look: fonts, colors, and a context that leaves the caller's matplotlib as it was.

One strong color marks the paper's method, everything else is muted. Layers go from light to dark with depth.
"""

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

Inches: TypeAlias = float | int
_LOG = logging.getLogger(__name__)

# The first that is installed; the last comes with matplotlib.
FONTS = ("Arial", "Liberation Sans", "DejaVu Sans")
# Fonts of other scripts, by the names that they have on Linux, macOS and Windows; those that are installed.
SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP",
    "Noto Sans KR", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback",
    "PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
    "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "NanumGothic",
    "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic", "Nirmala UI", "Leelawadee UI",
)  # fmt: skip
NO_GLYPH = "\N{WHITE VERTICAL RECTANGLE}"  # in place of a character that no font has
DPI = 200  # twice what a page shows, for sharp screens

PAPER = "#ffffff"
INK = "#1d2129"
MUTED = "#6a7180"
FAINT = "#dfe2e7"
TRACK = "#eef0f3"  # the empty part of a bar
MISSING = "#e3e5ea"  # pixels that are not seen
ACCENT = "#c8472b"
WRONG = "#b3261e"
RIVALS = ("#3f6b9e", "#5d9c8f", "#b58a3c", "#8a6aa8", "#7e8f45", "#b56f8c", "#4d5f7a", "#a3765a")
CONTROL = "#9aa0ab"  # lines
RANDOM = "#b9bfca"  # bars

HEAT = matplotlib.colormaps["inferno"]
DEPTH = LinearSegmentedColormap.from_list("depth", ["#c3dde4", "#6aa5bd", "#2f6d96", "#1b2f55"])


@contextlib.contextmanager
def context() -> Iterator[None]:
    """Returns a context, also a decorator, in which text and axes have the style of this library.

    Example:
        >>> before = matplotlib.rcParams["text.color"]
        >>> with context():
        ...     print(matplotlib.rcParams["text.color"])
        #1d2129
        >>> matplotlib.rcParams["text.color"] == before
        True
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a figure looks the same whatever style its caller uses
        matplotlib.rcParams.update({"font.family": _families(), **_SETTINGS})
        yield


def layer_colors(num_layers: int) -> list[tuple[float, float, float]]:
    """Returns a color for each layer, light for the first and dark for the last."""
    places = np.linspace(0, 1, num_layers) if num_layers > 1 else np.array([0.65])
    return [to_rgb(DEPTH(float(place))) for place in places]


def readable_on(color: Any) -> str:
    """Returns the color of text that is readable on another color.

    Example:
        >>> readable_on("black"), readable_on("white")
        ('#ffffff', '#1d2129')
    """
    return INK if np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722)) > 0.5 else PAPER


def quiet_axes(axes: Axes, *, grid: Literal["x", "y"] | None = None) -> None:
    """Leaves of the axes only muted labels, and thin lines at the values of the axis `grid`."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color=FAINT, linewidth=0.8)
    axes.tick_params(length=0, pad=6, colors=MUTED, labelsize=9, labelfontfamily=_families())
    axes.margins(0)


def percent(value: float | int, *, digits: int = 1) -> str:
    """Returns a number in [0, 1] as text in percent.

    Example:
        >>> percent(0.4219)
        '42.2 %'
    """
    return f"{100 * value:.{digits}f} %"


def new_figure(width: Inches, height: Inches) -> Figure:
    """Returns an empty figure that no window and no global state knows of."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def _families() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    found = [name for name in FONTS if name in installed]
    scripts = [name for name in SCRIPTS if name in installed]
    return list(dict.fromkeys((*found[:1], "DejaVu Sans", *scripts)))  # each for signs that those before lack


def drawable(text: str) -> str:
    """Returns text whose characters all have a glyph in some installed font, a box in place of others.

    Which were replaced is said by a warning, once.

    Example:
        >>> drawable("café")
        'café'
    """
    unknown = {sign for sign in text if sign != "\n" and ord(sign) not in _glyphs()}
    if unknown:
        _warn_of("".join(sorted(unknown)))
    return "".join(NO_GLYPH if sign in unknown else sign for sign in text)


@functools.cache
def _glyphs() -> frozenset[int]:
    files = [font_manager.findfont(name) for name in _families()]
    return frozenset().union(*(font_manager.get_font(file).get_charmap() for file in files))


@functools.cache
def _warn_of(signs: str) -> None:
    _LOG.warning(
        "no installed font has %s: pictures show boxes there (the report has the names); fonts of other "
        "scripts are Noto Sans CJK, Noto Sans Arabic, ...",
        signs,
    )


_SETTINGS: Any = {
    "font.size": 9,
    "text.color": INK,
    "text.hinting": "none",  # widths as the font has them
    "text.parse_math": False,  # a $ in a class name is a $
    "axes.labelcolor": MUTED,
    "axes.unicode_minus": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "savefig.dpi": "figure",
    "savefig.facecolor": "auto",
}
