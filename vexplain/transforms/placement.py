"""Where the batch, positions and channels of a layer are, from what is known of its axes (see `flow`)."""

from collections.abc import Sequence

import numpy as np

from vexplain.transforms.flow import COLUMN, IMAGE, NOTHING, ROW, Axis, Flow, added
from vexplain.transforms.layer import Field, Placement


def placement_of(flow: Flow, image_shape: Sequence[int]) -> Placement:
    """Returns where the parts of a value are; without a batch where that is not known."""
    axes = flow.axes
    batch = _batch_axis(flow, axes, image_shape[0])
    fold = 1 if batch is None else axes[batch].size // image_shape[0]
    is_known = all(axis.is_known for axis in axes) and not _is_ambiguous(axes)
    spatial = [a for a, axis in enumerate(axes) if _is_spatial(axis)]
    positional = [a for a in spatial if a != batch or fold > 1]
    channels = tuple(a for a, axis in enumerate(axes) if a not in spatial and IMAGE not in axis.places)
    found = grid_of([axes[a] for a in positional], batch in positional, fold) if is_known else None
    has_grid = found is not None and batch is not None and (fold == 1 or batch in spatial)
    grid, cells = found if found is not None else ((None, None), np.arange(1))
    which = tuple(
        next((a for a in reversed(positional) if d in axes[a].places), None) if grid[i] is not None else None
        for i, d in enumerate((ROW, COLUMN))
    )
    sizes = [fold if a == batch else axes[a].size for a in positional]
    is_ordered = has_grid and len(cells) == np.prod(sizes, initial=1) and (np.diff(cells) == 1).all()
    return Placement(
        batch_axis=batch if has_grid else None,
        batch_fold=fold if has_grid else 1,
        spatial_axes=(which[0], which[1]),
        channel_axes=channels,
        grid=grid,
        order=None if is_ordered else tuple(int(c) for c in cells),
        fields=_fields(flow, positional, batch, fold, grid, cells, image_shape, has_grid),
        unreadable=None if has_grid else _reason(flow, axes, image_shape[0]),
    )


def batch_of(flow: Flow, num_images: int) -> tuple[int, int] | None:
    """The batch axis of a value and how many positions it holds for each image; `None` if not known."""
    axis = _batch_axis(flow, flow.axes, num_images)
    return None if axis is None else (axis, flow.axes[axis].size // num_images)


def grid_of(
    axes: Sequence[Axis], has_batch: bool, fold: int
) -> tuple[tuple[int | None, int | None], np.ndarray] | None:
    """Returns (rows, columns), and which of the flattened positions each cell is; `None` if they are no grid.

    Args:
        axes: those that hold rows or columns.
        has_batch: the first of them is that of the batch, and holds `fold` positions of each image.
    """
    sizes = [fold if k == 0 and has_batch else axis.size for k, axis in enumerate(axes)]
    found = [added(axes, d, sizes) for d in (ROW, COLUMN)]
    rows, columns = (np.zeros(sizes) if n is None else n for n in found)
    rows, columns = (np.broadcast_to(n, sizes).reshape(-1) for n in (rows, columns))
    cells = np.flatnonzero(~np.isnan(rows + columns))
    rows, columns = rows[cells], columns[cells]
    steps = np.diff(rows), np.diff(columns)
    if ((steps[0] < 0) | ((steps[0] == 0) & (steps[1] <= 0))).any():  # not row by row
        order = np.lexsort((columns, rows))
        cells, rows, columns = cells[order], rows[order], columns[order]
    height = int(np.count_nonzero(np.diff(rows, prepend=np.nan)))
    if not height or len(cells) % height:
        return None
    rows, columns = rows.reshape(height, -1), columns.reshape(height, -1)
    is_grid = (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
    if not (is_grid and (np.diff(columns[0]) > 0).all()):
        return None
    width = columns.shape[1]
    has_rows, has_columns = (n is not None for n in found)
    return (height if has_rows else None, width if has_columns else None), cells


def _reason(flow: Flow, axes: Sequence[Axis], num_images: int) -> str:
    first, last = flow.reach[IMAGE][0], -flow.reach[IMAGE][1]
    is_mixed = num_images > 1 and bool(((first < last) & (first != NOTHING)).any())
    is_known = all(axis.is_known for axis in axes) and not _is_ambiguous(axes)
    if is_known and is_mixed:
        return "for they mix the images of a batch (a normalization in training mode?)"
    if is_known and all(axis.size == 1 for axis in axes if IMAGE in axis.places):
        return "for they take the images one by one"
    return "for their batch, positions and channels could not be followed"


def _is_ambiguous(axes: Sequence[Axis]) -> bool:
    """Are rows joined with channels on one axis, and other channels, or one, on another?"""
    channels = [axis for axis in axes if axis.holds_channels or axis.is_copy]
    return len(channels) > 1 and any(axis.places for axis in channels)


def _is_spatial(axis: Axis) -> bool:
    return not axis.holds_channels and not {ROW, COLUMN}.isdisjoint(axis.places)


def _batch_axis(flow: Flow, axes: Sequence[Axis], num_images: int) -> int | None:
    """The one axis along which the image changes, if nothing depends on another image."""
    having = [a for a, axis in enumerate(axes) if IMAGE in axis.places]
    if len(having) != 1 or axes[having[0]].holds_channels or len(axes) < 2:
        return None
    a = having[0]
    images = axes[a].places[IMAGE]
    if axes[a].size % num_images or not np.array_equal(
        images, np.repeat(np.arange(num_images), axes[a].size // num_images)
    ):
        return None
    first, last = flow.reach[IMAGE][0], -flow.reach[IMAGE][1]
    own = images.reshape([-1 if b == a else 1 for b in range(len(axes))])
    is_nothing = first == NOTHING
    return a if (((first == own) & (last == own)) | is_nothing).all() else None


def _fields(flow, positional, batch, fold, grid, cells, image_shape, has_grid) -> tuple[Field, Field]:
    found = []
    for i, d in enumerate((ROW, COLUMN)):
        reach = flow.reach[d]
        kept = positional if has_grid else []
        reach = reach.min(tuple(1 + a for a in range(len(flow.axes)) if a not in kept), keepdims=True)
        if has_grid:
            shape = [flow.axes[a].size if reach.shape[1 + a] > 1 or a == batch else 1 for a in kept]
            rows = np.broadcast_to(reach.reshape(4, *(reach.shape[1 + a] for a in kept)), (4, *shape))
            if batch in kept:  # the batch comes first: its first image stands for all
                rows = np.take(rows, np.arange(fold), 1 + kept.index(batch))
            sizes = [fold if a == batch else flow.axes[a].size for a in kept]
            flat = np.broadcast_to(rows, (4, *sizes)).reshape(4, -1)[:, cells]
            flat = flat.reshape(4, grid[0] or 1, grid[1] or 1).min(2 - i)
            flat = flat if grid[i] is not None else flat.min(1, keepdims=True)
        else:
            flat = reach.reshape(4, 1)
        found.append(_field(flat, image_shape[1 + i]))
    return found[0], found[1]


def _field(reach: np.ndarray, size: int) -> Field:
    is_seen, is_window = reach[0] < NOTHING // 2, reach[2] < NOTHING // 2
    seen = [
        (int(f), int(1 - m)) if ok else (0, 0) for f, m, ok in zip(reach[0], reach[1], is_seen, strict=True)
    ]
    windows = [
        (int(f), int(1 - m)) if ok else w
        for f, m, ok, w in zip(reach[2], reach[3], is_window, seen, strict=True)
    ]
    if len(set(windows)) == 1 == len(set(seen)):
        windows, seen = windows[:1], seen[:1]
    return Field(tuple(windows), tuple(seen))
