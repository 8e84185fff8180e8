"""Ray casting of analytic solids: where a parallel ray first meets an ellipsoid or a tapered cylinder.

Rays run along -z. A ray is the point (u, v) of the image plane where it passes; the visible point of a solid
is the one with the largest z. A miss has z = -inf.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Float, Int

_Grid = Float[Array, "..."]


class Ellipsoids(NamedTuple):
    """The points p with |shape (p - center)| <= 1, one a leading index.

    `shape` is diag(1 / radii) times the rotation from the world into the axes of the solid.
    """

    centers: Float[Array, "solids 3"]
    shapes: Float[Array, "solids 3 3"]


class TaperedCylinders(NamedTuple):
    """Open cone segments from `starts` to `ends`, with a radius at each."""

    starts: Float[Array, "solids 3"]
    ends: Float[Array, "solids 3"]
    radii: Float[Array, "solids 2"]


class Hit(NamedTuple):
    """Depth and unit normal of the visible point."""

    z: _Grid
    normal: tuple[_Grid, _Grid, _Grid]


def hit_ellipsoid(u: _Grid, v: _Grid, center: Float[Array, "3"], shape: Float[Array, "3 3"]) -> Hit:
    """Returns where the rays meet one ellipsoid.

    With m(z) = shape (p(z) - center) = q + z d, |q + z d|² = 1 is a quadratic equation in z.
    """
    x, y = u - center[0], v - center[1]
    d = shape[:, 2]
    q = [shape[i, 0] * x + shape[i, 1] * y - shape[i, 2] * center[2] for i in range(3)]
    a = (d**2).sum()
    b = q[0] * d[0] + q[1] * d[1] + q[2] * d[2]
    c = q[0] ** 2 + q[1] ** 2 + q[2] ** 2 - 1
    inside = b**2 - a * c
    z = (-b + jnp.sqrt(jnp.maximum(inside, 0))) / a
    m = [q[i] + z * d[i] for i in range(3)]
    normal = [m[0] * shape[0, j] + m[1] * shape[1, j] + m[2] * shape[2, j] for j in range(3)]
    return Hit(jnp.where(inside > 0, z, -jnp.inf), _unit(normal))


def hit_tapered_cylinder(
    u: _Grid, v: _Grid, start: Float[Array, "3"], end: Float[Array, "3"], radii: Float[Array, "2"]
) -> Hit:
    """Returns where the rays meet the side of one cone segment.

    With t the height along the axis (0 to h) and r(t) = r0 + k t, the side is |p - start|² - t² = r(t)².
    """
    axis = end - start
    h = jnp.sqrt((axis**2).sum())
    axis = axis / h
    k = (radii[1] - radii[0]) / h
    x, y, z0 = u - start[0], v - start[1], -start[2]
    t0, tz = axis[0] * x + axis[1] * y + axis[2] * z0, axis[2]
    r0, rz = radii[0] + k * t0, k * tz
    a = 1 - tz**2 - rz**2
    b = z0 - t0 * tz - r0 * rz
    c = x**2 + y**2 + z0**2 - t0**2 - r0**2
    inside = b**2 - a * c
    root = jnp.sqrt(jnp.maximum(inside, 0))
    best = jnp.full(jnp.shape(u), -jnp.inf)
    for sign in (-1, 1):
        z = (-b + sign * root) / a
        t = t0 + z * tz
        hits = (inside > 0) & (t >= 0) & (t <= h) & (radii[0] + k * t >= 0)
        best = jnp.where(hits, jnp.maximum(best, z), best)
    z = jnp.where(jnp.isfinite(best), best, 0)
    t = t0 + z * tz
    lean = t + k * (radii[0] + k * t)
    normal = [x - axis[0] * lean, y - axis[1] * lean, z0 + z - axis[2] * lean]
    return Hit(best, _unit(normal))


def nearest(
    u: _Grid, v: _Grid, ellipsoids: Ellipsoids, cylinders: TaperedCylinders
) -> tuple[Int[Array, "..."], tuple[_Grid, _Grid, _Grid]]:
    """Returns the id (0 for none) of the solid that each ray meets first, and its normal there.

    Ellipsoids come first, 1, 2, ..., then the cylinders. The solids are visited by a loop of the compiled
    program: its size does not grow with their number.
    """
    carry = (jnp.full_like(u, -jnp.inf), jnp.zeros(u.shape, jnp.int32), (jnp.zeros_like(u),) * 3)
    first = 1
    for hit_fn, group in ((hit_ellipsoid, ellipsoids), (hit_tapered_cylinder, cylinders)):

        def visit(carry, solid, hit_fn=hit_fn):
            (depth, *found), (identity, *geometry) = carry, solid
            hit = hit_fn(u, v, *geometry)
            is_nearer = hit.z > depth
            new, old = (hit.z, identity, hit.normal), (depth, *found)
            return jax.tree.map(lambda a, b: jnp.where(is_nearer, a, b), new, old), None

        carry, _ = jax.lax.scan(visit, carry, (first + jnp.arange(len(group[0])), *group))
        first += len(group[0])
    return carry[1], carry[2]


def _unit(vector: list[_Grid]) -> tuple[_Grid, _Grid, _Grid]:
    scale = 1 / jnp.sqrt(jnp.maximum(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2, 1e-12))
    return vector[0] * scale, vector[1] * scale, vector[2] * scale
