"""What the axes of a value stand for, and which pixels its entries depend on.

Both are followed through the program step by step, never guessed from sizes or from the place of an axis.

* An **axis** keeps, for each of its indices, the image, the row and the column that it stands for (its
  places), where it stands for any. `reshape` splits and joins them like the digits of a number: of images
  (n, h, w, c) the windows (n · h/4 · w/4, 16, c) still know the row and column of every entry. An axis that
  holds other numbers than positions holds channels.
* The **reach** of a value is, for every entry, the first and the last image, row and column that it depends
  on. Entries of one row have the same reach along the columns, so that an axis along which nothing changes
  has length one in the arrays that keep it. A second pair of bounds is the window of the receptive field,
  which goes on over the border of the image.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

IMAGE, ROW, COLUMN = range(3)
DIMENSIONS = (IMAGE, ROW, COLUMN)
NOTHING = np.int64(2**40)  # of an entry that depends on no pixel
_MOST_ENTRIES = 2**20  # of a reach; what is larger is taken to see what any of its entries sees
Places = np.ndarray  # (indices of an axis,): numbers, NaN where an index stands for no place


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """What the indices of an axis stand for.

    Attributes:
        size: how many there are.
        places: by dimension (image, row, column), the number of each index.
        holds_channels: the indices stand for other things too.
        is_known: False where the axis could not be followed.
        period: by dimension, the number of rows or columns where these were rolled before they were split:
            the places of several axes are added modulo it.
        is_part: the channels are a part of an axis that was split, which a pixel shuffle joins with rows.
    """

    size: int
    places: Mapping[int, Places] = dataclasses.field(default_factory=dict)
    holds_channels: bool = False
    is_known: bool = True
    period: Mapping[int, int] = dataclasses.field(default_factory=dict)
    is_part: bool = False

    @property
    def is_copy(self) -> bool:
        """The same again at every index."""
        return self.is_known and not self.places and not self.holds_channels

    @property
    def is_of_space(self) -> bool:
        """Rows and columns, or the same again, and nothing else."""
        return self.is_known and not self.holds_channels and set(self.places) <= {ROW, COLUMN}

    def is_only(self, dimension: int) -> bool:
        return self.is_known and set(self.places) == {dimension} and not self.holds_channels


@dataclasses.dataclass(frozen=True, eq=False)
class Flow:
    """The axes of a value and its reach.

    Attributes:
        axes: one for each axis of the value.
        reach: by dimension, whole numbers of shape (4, *shape with ones): first seen, minus the last seen,
            start of the window, minus its last; the hull of two is the smaller of each.
        point: the place at which the value was taken, along dimensions that no axis has.
    """

    axes: tuple[Axis, ...]
    reach: tuple[np.ndarray, ...]
    point: Mapping[int, float] = dataclasses.field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    def of_one_image(self) -> "Flow":
        """With the image in a first axis of length one, where its axis was taken away before.

        `jnp.matmul` and others squeeze a batch of one image, and put the axis there again.
        """
        is_gone = IMAGE in self.point and not any(IMAGE in axis.places for axis in self.axes)
        if not (is_gone and self.axes and self.axes[0].is_copy and self.axes[0].size == 1):
            return self
        axis = dataclasses.replace(self.axes[0], places={IMAGE: np.array([self.point[IMAGE]])})
        return Flow((axis, *self.axes[1:]), self.reach, self.point)

    def ranked(self) -> "Flow":
        """With a finer grid where rows or columns are there several times (see `ranked_axes`)."""
        return Flow(tuple(ranked_axes(self.axes)), self.reach, self.point)


def of_images(shape: Sequence[int]) -> Flow:
    """Of images (batch, height, width, channels) themselves."""
    axes = [Axis(n, {d: np.arange(n, dtype=float)}) for d, n in zip(DIMENSIONS, shape, strict=False)]
    reach = []
    for d in DIMENSIONS:
        numbers = np.arange(shape[d]).reshape([-1 if a == d else 1 for a in range(4)])
        reach.append(np.stack([numbers, -numbers, numbers, -numbers]))
    return Flow((*axes, Axis(shape[3], holds_channels=True)), tuple(reach))


def unknown(shape: Sequence[int], image_shape: Sequence[int]) -> Flow:
    """Of what nothing is known: it may see every pixel of every image."""
    reach = []
    for d in DIMENSIONS:
        bounds = np.array([0, 1 - image_shape[d], 0, 1 - image_shape[d]])
        reach.append(bounds.reshape(4, *(1,) * len(shape)))
    return Flow(tuple(Axis(n, is_known=False) for n in shape), tuple(reach))


def seeing_everything(flow: Flow, image_shape: Sequence[int], *, images_too: bool = False) -> Flow:
    """With the whole image as its reach."""
    whole = unknown(flow.shape, image_shape).reach
    return dataclasses.replace(flow, reach=(whole[0] if images_too else flow.reach[0], whole[1], whole[2]))


def union(a: Flow, b: Flow) -> Flow:
    """Of a value that is computed entry by entry from two of its shape."""
    reach = tuple(_both_reach(x, y) for x, y in zip(a.reach, b.reach, strict=True))
    point = {d: p for d, p in a.point.items() if b.point.get(d, p) == p}
    point |= {d: p for d, p in b.point.items() if a.point.get(d, p) == p}
    axes = tuple(_both(x, y) for x, y in zip(a.axes, b.axes, strict=True))
    return limited(Flow(axes, reach, point).ranked())


def _both_reach(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The hull of both; a window that slides is none where the other does not slide with it."""
    hull = np.minimum(x, y)
    if x.shape == y.shape:
        return hull
    return np.concatenate([hull[:2], hull[:2]])


def limited(flow: Flow) -> Flow:
    """With a reach of no more entries than are kept."""
    return dataclasses.replace(flow, reach=tuple(map(_limited, flow.reach)))


def _limited(reach: np.ndarray) -> np.ndarray:
    """Of too many entries the hull along the last axis: of an attention that over which it sums next."""
    while reach.size > _MOST_ENTRIES:
        last = max(a for a, n in enumerate(reach.shape) if n > 1 and a > 0)
        reach = reach.min(last, keepdims=True)
    return reach


def _both(a: Axis, b: Axis) -> Axis:
    """An axis of which two values are computed together, index by index."""
    if not (a.is_known and b.is_known):
        return Axis(a.size, is_known=False)
    if b.is_copy or (b.holds_channels and not b.places and a.places):
        return a
    if a.is_copy or (a.holds_channels and not a.places and b.places):
        return b
    places: dict[int, Places] = {}
    for d in {*a.places, *b.places}:
        x, y = a.places.get(d), b.places.get(d)
        if x is None or y is None or np.array_equal(x, y, equal_nan=True):
            places[d] = x if y is None else y  # pyright: ignore[reportArgumentType]
        elif d != IMAGE and a.is_only(d) and b.is_only(d):
            places[d] = np.arange(a.size, dtype=float)  # two orders of one axis: the order of its indices
        else:
            return Axis(a.size, is_known=False)
    if any(a.period.get(d) != b.period.get(d) for d in a.places if d in b.places):
        return Axis(a.size, is_known=False)
    holds, is_part = a.holds_channels or b.holds_channels, a.is_part and b.is_part
    return Axis(a.size, places, holds, period={**a.period, **b.period}, is_part=is_part)


def added(axes: Sequence[Axis], d: int, sizes: Sequence[int]) -> np.ndarray | None:
    """The places along a dimension of an array of these axes, of some sizes; `None` where it has none."""
    having = [i for i, axis in enumerate(axes) if d in axis.places]
    if not having:
        return None
    total = np.zeros(sizes)
    for i in having:
        places = axes[i].places[d][: sizes[i]]
        total = total + places.reshape([-1 if k == i else 1 for k in range(len(sizes))])
    period = next((axes[i].period[d] for i in having if d in axes[i].period), None)
    return total if period is None else total % period


def ranked_axes(axes: Sequence[Axis]) -> list[Axis]:
    """Numbers the rows of an axis that alone has them anew, where some are there several times: a finer grid.

    They are after a repetition, and where rows were joined with a part of the channels (a pixel shuffle).
    """
    axes = list(axes)
    for d in (ROW, COLUMN):
        having = [i for i, axis in enumerate(axes) if d in axis.places]
        if len(having) != 1 or set(axes[having[0]].places) != {d}:
            continue
        axis, places = axes[having[0]], axes[having[0]].places[d]
        finer = _finer(places)
        is_shuffled = axis.is_part and any(map(_is_channels, axes)) and finer is not None
        if axis.holds_channels and not is_shuffled:
            continue
        is_place = ~np.isnan(places)
        if len(np.unique(places[is_place])) < is_place.sum():
            if finer is None:
                finer = np.full(places.shape, np.nan)
                finer[is_place] = np.arange(is_place.sum())
            places = finer
        axes[having[0]] = Axis(axis.size, {d: places})
    return axes


def _finer(places: Places) -> Places | None:
    """Numbers places that come in runs of one length anew; `None` where they do not."""
    distinct = len(np.unique(places))
    if np.isnan(places).any() or len(places) % distinct:
        return None
    runs = places.reshape(distinct, -1)
    if (runs != runs[:, :1]).any() or len(np.unique(runs[:, 0])) < distinct:
        return None
    return (runs * runs.shape[1] + np.arange(runs.shape[1])).reshape(-1)


def _is_channels(axis: Axis) -> bool:
    return axis.holds_channels and not axis.places


def hull(flow: Flow, axes: Sequence[int]) -> Flow:
    """Every entry along some axes with the reach of all; without positions, windows end at the border."""
    along = tuple(1 + a for a in axes)
    left = {d for a, axis in enumerate(flow.axes) if a not in axes for d in axis.places}
    reach = []
    for d, r in zip(DIMENSIONS, flow.reach, strict=True):
        hull = r.min(along, keepdims=True) if along else r
        is_border = hull.shape != r.shape and d not in left
        reach.append(np.concatenate([hull[:2], hull[:2]]) if is_border else hull)
    return Flow(flow.axes, tuple(reach), flow.point)


def dropped(flow: Flow, axes: Sequence[int]) -> Flow:
    """Without some axes, over which the reach is the hull; a point remembers where they were."""
    flow, gone = hull(flow, axes), set(axes)
    reach = tuple(np.squeeze(r, tuple(1 + a for a in gone)) for r in flow.reach)
    point = dict(flow.point)
    for a in sorted(gone):
        point |= {d: float(np.nanmean(p)) for d, p in flow.axes[a].places.items() if not np.isnan(p).all()}
    left = [axis for a, axis in enumerate(flow.axes) if a not in gone]
    return Flow(tuple(left), reach, point).ranked()


def taken(flow: Flow, a: int, index: np.ndarray, *, is_grid: bool = False) -> Flow:
    """The entries of an axis at some indices, -1 for entries that are of no image."""
    axis, inside = flow.axes[a], index >= 0
    if not axis.is_known:
        new = Axis(len(index), is_known=False)
    elif is_grid and any(axis.is_only(d) for d in (ROW, COLUMN)):
        new = Axis(len(index), {next(iter(axis.places)): np.arange(len(index), dtype=float)})
    else:
        places = {d: np.where(inside, p[np.maximum(index, 0)], np.nan) for d, p in axis.places.items()}
        new = Axis(len(index), places, axis.holds_channels, period=axis.period, is_part=axis.is_part)
    reach = []
    for r in flow.reach:
        is_same = r.shape[1 + a] == 1 and inside.all()
        rows = np.take(r, np.maximum(index, 0) if r.shape[1 + a] > 1 else np.zeros_like(index), 1 + a)
        mask = inside.reshape([-1 if i == 1 + a else 1 for i in range(r.ndim)])
        reach.append(r if is_same else np.where(mask, rows, NOTHING))
    return dataclasses.replace(with_one_axis(flow, a, new), reach=tuple(reach))


def transposed(flow: Flow, order: Sequence[int]) -> Flow:
    reach = tuple(np.transpose(r, (0, *(1 + a for a in order))) for r in flow.reach)
    return Flow(tuple(flow.axes[a] for a in order), reach, flow.point)


def with_one_axis(flow: Flow, a: int, axis: Axis) -> Flow:
    """With another axis in the place of one."""
    axes = tuple(axis if i == a else old for i, old in enumerate(flow.axes))
    return dataclasses.replace(flow, axes=axes)


def spread(reach: Sequence[np.ndarray], to: Mapping[int, int], rank: int) -> tuple[np.ndarray, ...]:
    """The reach of a value of some rank whose axis `to[a]` is axis a, of the same length one elsewhere.

    Axes that go nowhere have length one.
    """
    order = sorted(to, key=lambda a: to[a])
    found = []
    for r in reach:
        sizes = [1] * rank
        for a in order:
            sizes[to[a]] = r.shape[1 + a]
        rest = [a for a in range(r.ndim - 1) if a not in to]
        found.append(np.transpose(r, (0, *(1 + a for a in (*order, *rest)))).reshape(4, *sizes))
    return tuple(found)


def with_axis(flow: Flow, a: int) -> Flow:
    reach = tuple(np.expand_dims(r, 1 + a) for r in flow.reach)
    return Flow((*flow.axes[:a], Axis(1), *flow.axes[a:]), reach, flow.point)


def without_axis(flow: Flow, a: int) -> Flow:
    reach = tuple(np.squeeze(r, 1 + a) for r in hull(flow, [a]).reach)
    return Flow((*flow.axes[:a], *flow.axes[a + 1 :]), reach, flow.point)


def stretched(flow: Flow, shape: Sequence[int]) -> Flow:
    """Of an array of numbers that each go to several entries: an axis of length one is repeated."""
    if flow.shape == tuple(shape) or (flow.axes and len(flow.axes) != len(shape)):
        return flow
    axes, point = [Axis(n) for n in shape], dict(flow.point)
    for a, axis in enumerate(flow.axes):
        if axis.size == shape[a]:
            axes[a] = axis
        elif axis.size == 1:
            point |= {d: float(p[0]) for d, p in axis.places.items()}
        else:
            return flow
    reach = spread(flow.reach, {}, len(shape)) if not flow.axes else flow.reach
    return Flow(tuple(axes), reach, point)


def positions(flow: Flow) -> set[int]:
    """Which of rows and columns a value has."""
    return {d for axis in flow.axes if not axis.holds_channels for d in axis.places if d in (ROW, COLUMN)}
