"""Where an object is put that is translated: scenes to fit in, and the one way in which products are shown.

Taking off has one answer: all products are shown alike. Trying on has many, one for each wearer: a scene is
given, the wearer without the garment, and the fit-in module says in which shape the garment belongs there
(*reconstructed*: that a context image enters through such a module is recalled of the paper, and no more).
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from vexplain.translation.blocks import act, conv, linear, to_depth
from vexplain.translation.layered.compositing import sample_bilinear
from vexplain.typing import Array, Float, Images, Masks

HASTE = 10.0  # of a few numbers, which Adam would otherwise move by one learning rate a step
_SMALL = 0.1  # changes of moments, to begin with
_MIDDLE = (0.0, 0.0, 0.5, 0.0, 0.0)  # moments of an object in the middle of an image, to begin with


class Scene(NamedTuple):
    """Images of domain B without their objects, into which others are put.

    Attributes:
        images: (batch, height, width, 3) in [0, 1]; what they show within the hole does not count.
        holes: (batch, height, width), 1 where the object was taken out with what is next to it, 0 elsewhere.
    """

    images: Images
    holes: Masks


class Fitted(NamedTuple):
    """In what shape objects belong in a place, and what is behind them."""

    shape: Float[Array, "batch shape_numbers"]  # as `Codes.shape`
    background: Images


class FitIn(nnx.Module):
    """The shape code of an object that belongs in a scene: five moments near those of the hole, and more.

    Also what is seen in the hole beside the object: the surroundings, blurred, and what is added to them.
    """

    def __init__(self, widths: tuple[int, ...], grid: int, shape_size: int, *, rngs: nnx.Rngs, dtype: str):
        self.dtype = dtype
        sizes = (4, *widths)
        self.stages = nnx.List([conv(4 * a, b, rngs, dtype=dtype) for a, b in itertools.pairwise(sizes)])
        self.shape = linear(grid**2 * sizes[-1], shape_size, rngs, gain=0.5)

    def __call__(self, scene: Scene, moments: Float[Array, "batch 5"]) -> Float[Array, "batch numbers"]:
        """Returns shape codes; `moments` are those of the holes."""
        seen = scene.images * (1 - scene.holes[..., None])
        x = jnp.concatenate([seen * 2 - 1, scene.holes[..., None]], -1).astype(self.dtype)
        for stage in self.stages:
            x = act(stage(to_depth(x)))
        found = self.shape(x.reshape(len(x), -1).astype(jnp.float32))
        changes = _SMALL * found[:, -moments.shape[1] :]
        return jnp.concatenate([found[:, : -moments.shape[1]], moments + changes], -1)


class Display(nnx.Module):
    """How all products are shown: the mean shape code of domain A, and the mean color behind its objects."""

    def __init__(self, shape_size: int):
        self.shape = nnx.Param(jnp.zeros(shape_size))
        self.color = nnx.Param(jnp.zeros(3))

    def __call__(self, count: int, size: int) -> Fitted:
        shape = HASTE * self.shape[...]
        shape = shape.at[-len(_MIDDLE) :].add(jnp.array(_MIDDLE))
        color = jnp.clip(0.5 + HASTE * self.color[...], 0, 1)
        return Fitted(
            jnp.broadcast_to(shape, (count, *shape.shape)), jnp.broadcast_to(color, (count, size, size, 3))
        )


def moved(
    texture: Images,
    places: Float[Array, "batch height width 2"],
    new_places: Float[Array, "batch height width 2"],
) -> Images:
    """Returns a texture as it looks where the object's coordinates are others: turned, scaled and shifted.

    Args:
        texture: colors of the whole plane.
        places: the object's coordinates at each pixel, linear in row and column.
        new_places: those at each pixel of what is returned. What lies beyond the border of the texture has
            the color of the border.
    """
    origin = places[:, 0, 0]
    steps = jnp.stack([places[:, 1, 0] - origin, places[:, 0, 1] - origin], 1)  # of a row, of a column
    back = jnp.linalg.inv(steps)
    positions = jnp.einsum("nhwi,nij->nhwj", new_places - origin[:, None, None], back)
    return sample_bilinear(texture, positions)
