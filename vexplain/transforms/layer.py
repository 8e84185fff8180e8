"""One layer of a traced network: what it is, where its numbers stand, what each of them sees."""

import dataclasses

from vexplain.transforms.program import Path


@dataclasses.dataclass(frozen=True)
class Field:
    """The receptive field along height or width.

    Attributes:
        windows: for each position the first pixel and the one after the last, before clipping to the image.
        seen: those that the position does depend on; (0, 0) of none.
    """

    windows: tuple[tuple[int, int], ...]
    seen: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Pixels of the largest window: all are shown at one size."""
        return max(stop - start for start, stop in self.windows)

    @property
    def jump(self) -> float:
        """Pixels from one position to the next, in the mean; 0 where all see the same."""
        starts = sorted(start for start, _ in self.windows)
        return (starts[-1] - starts[0]) / max(len(starts) - 1, 1)

    def window(self, position: int) -> tuple[int, int]:
        """First pixel and the one after the last, of a window of `size` pixels around what is seen."""
        start, stop = self.windows[position if len(self.windows) > 1 else 0]
        start -= (self.size - (stop - start)) // 2
        return start, start + self.size

    def pixels(self, position: int) -> tuple[int, int]:
        """First pixel and the one after the last that a position depends on."""
        return self.seen[position if len(self.seen) > 1 else 0]


@dataclasses.dataclass(frozen=True)
class PooledAxis:
    """How the window of a pooling slides along rows or columns.

    Attributes:
        in_axes: the axis of what enters the pooling; of blocks that a reshape made two, the number of the
            block and the place in it.
        out_axis: the axis of what leaves it.
        size: of the window.
        stride: from one window to the next.
        dilation: from one entry of the window to the next.
        lead: entries of padding before the first one.
    """

    in_axes: tuple[int, ...]
    out_axis: int
    size: int
    stride: int
    dilation: int
    lead: int


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the numbers of an activation stand; `Layer` describes the attributes."""

    batch_axis: int | None
    batch_fold: int
    spatial_axes: tuple[int | None, int | None]
    channel_axes: tuple[int, ...]
    grid: tuple[int | None, int | None]
    order: tuple[int, ...] | None
    fields: tuple[Field, Field]
    unreadable: str | None


@dataclasses.dataclass(frozen=True)
class Layer(Placement):
    """One layer of a traced network.

    Attributes:
        name: unique in the network.
        kind: `conv`, `dense`, `relu`, another activation function's name, `norm`, `pool`, `add`,
            `concatenate`, `named`, or "other:" and the primitive of a non-linear step that has no name.
        shape: of its activation, with the batch.
        batch_axis: which axis of `shape` is the batch; `None` where images are mixed (a normalization
            over the batch), or where it could not be followed.
        batch_fold: how many positions the batch axis holds for each image, after another; 1 but in windows.
        spatial_axes: which axes are height and width, the same one of tokens; of several (windows) that which
            varies fastest; `None` where the axis is gone.
        channel_axes: which axes hold the channels: all that are neither the batch nor positions.
        grid: (rows, columns) of positions; `None` in place of a number where the axis is gone.
        order: of tokens, windows and permuted rows: for each cell of the grid, row by row, which of the
            positions it is; `None` where they are in order. Class and register tokens are in no cell.
        fields: the receptive field along height and width.
        image_size: (height, width) of the network's input, in pixels.
        strides: of the convolution itself; `()` for other kinds.
        pooled: how the window of a pooling slides; `()` for other kinds, for a global pooling, and where what
            is pooled could not be followed.
        bounds: of an activation function that is clipped, a ReLU: between which inputs its derivative is not
            zero.
        index: its place in the layer table.
        path: where its value is made in the program; `step_path`: where its operation is.
        is_first: it is the first linear layer that pixels go through; known to rules of propagation only.
        is_last: no other linear layer comes after it; known to rules of propagation only.
        inside: why it cannot be touched (`"a custom_vjp function"`, ...), or `None`.
        unreadable: why its channels cannot be told apart, image by image, or `None`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    image_size: tuple[int, int]
    strides: tuple[int, ...]
    pooled: tuple[PooledAxis, ...]
    bounds: tuple[float, float] | None
    index: int
    path: Path
    step_path: Path
    inside: str | None
    is_first: bool = False
    is_last: bool = False

    @property
    def channel_axis(self) -> int | None:
        """Which axis holds the channels, if it is one."""
        return self.channel_axes[0] if len(self.channel_axes) == 1 else None

    @property
    def num_channels(self) -> int:
        count = 1
        for axis in self.channel_axes:
            count *= self.shape[axis]
        return count

    @property
    def num_positions(self) -> int:
        """Along height and width together; 0 where one of these axes is gone."""
        return (self.grid[0] or 0) * (self.grid[1] or 0)

    @property
    def is_readable(self) -> bool:
        """Can its channels be told apart, image by image?"""
        return self.unreadable is None

    @property
    def receptive_field(self) -> tuple[int, int]:
        """(height, width) in pixels of the input that one position sees, at most the image."""
        height, width = (min(f.size, n) for f, n in zip(self.fields, self.image_size, strict=True))
        return height, width

    @property
    def sees_whole_image(self) -> bool:
        """True where every position sees the whole image."""
        return all(
            set(f.windows) == {(0, n)} == set(f.seen)
            for f, n in zip(self.fields, self.image_size, strict=True)
        )

    def with_grid(self, grid: tuple[int, int]) -> "Layer":
        """This layer of tokens (batch, tokens, channels) with positions that you know.

        Where the tokens of an image are not made by a convolution or a reshape of it, their rows and columns
        cannot be found. Pass what is returned as `layer=` of a class activation map.

        Args:
            grid: (rows, columns), row by row; tokens before these (a class token) have no position.

        Raises:
            ValueError: the layer is no array (batch, tokens, channels) of that many tokens.
        """
        rows, columns = grid
        extra = self.shape[1] - rows * columns if len(self.shape) == 3 else -1
        if extra < 0 or self.inside is not None:
            raise ValueError(
                f"grid is {grid}: layer {self.name!r} of shape {self.shape} holds no tokens for {rows} × "
                f"{columns} positions; expected (batch, tokens, channels), tokens >= {rows * columns}"
            )
        whole = tuple(Field(((0, n),), ((0, n),)) for n in self.image_size)
        return dataclasses.replace(
            self,
            batch_axis=0,
            batch_fold=1,
            spatial_axes=(1, 1),
            channel_axes=(2,),
            grid=(rows, columns),
            order=tuple(range(extra, extra + rows * columns)),
            fields=(whole[0], whole[1]),
            unreadable=None,
        )

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the receptive field of a position, in pixels.

        A window is never less than what is seen. All windows of a layer have one size; those near the
        border reach over it. `bottom` and `right` are exclusive. `visible` clips.
        """
        (top, bottom), (left, right) = self.fields[0].window(row), self.fields[1].window(column)
        return top, left, bottom, right

    def visible(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the pixels that a position does depend on."""
        (top, bottom), (left, right) = self.fields[0].pixels(row), self.fields[1].pixels(column)
        return top, left, bottom, right
