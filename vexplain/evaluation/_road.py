"""Remove and debias: pixels are removed in the order of a map, and filled in from their neighbors.

A constant that replaces pixels shows their outline, so that the mask alone may tell the class. ROAD replaces
them by what their neighbors predict, a noisy linear interpolation, so that little is told by the mask.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.attribution import Score, logit
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._pixel_flipping import MODES, FlippingCurve, flipping_positions
from vexplain.evaluation._regions import Keys, Maps, check_maps, image_keys
from vexplain.typing import ApplyFn, Array, Float, Images, PyTree, Shaped, Variables

# Weights of the neighbors, 1/6 beside and 1/12 across a corner (paper); those beyond the border have none.
_WEIGHTS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12


@compiled_metric
def road(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    key: Keys,
    score: Score = logit,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
    mode: Literal["deletion", "insertion"] = "deletion",
    noise_level: float = 0.01,
) -> FlippingCurve:
    """Returns the score when a share of the pixels is removed and filled in from the others.

    "deletion" removes the highest pixels first (MoRF, a low area is better), "insertion" leaves them to the
    last (LeRF, a high area is better). The area is the mean over the shares. ROAD is the share of images that
    stay correctly classified: pass score=lambda outputs, targets: (outputs.argmax(-1) == targets) * 1.0.
    Quantus returns that for each share, MoRF only.

    Args:
        heatmaps: (batch, height, width), of any sign.
        key: of the noise: one, or one an image.
        shares: of the pixels that are removed, in (0, 1) each, ascending.
        mode: "deletion" or "insertion".
        noise_level: standard deviation of the noise on what is filled in (0.01 in the authors' program).

    References:
        Rong, Leemann, Borisov, Kasneci, Kasneci, A Consistent and Efficient Evaluation Strategy for
        Attribution Methods, ICML 2022, Section 4.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.full((1, 4, 5, 1), 0.5)
        >>> options = {"shares": (0.5,), "noise_level": 0.0, "key": jax.random.key(0)}
        >>> curve = road(apply, None, images, None, images[..., 0], score=total, **options)
        >>> print(curve.scores.round(3))  # of a plain image nothing is lost
        [[10.]]
    """
    check_choice("mode", mode, MODES)
    if not shares or not all(0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise ValueError(f"shares is {shares}: expected ascending shares of the pixels, in (0, 1) each")
    images = jnp.asarray(images)
    heatmaps = check_maps("heatmaps", heatmaps, images)
    positions = flipping_positions(heatmaps if mode == "deletion" else -heatmaps, None)
    keys = image_keys("road", key, len(images))
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    num_pixels = heatmaps[0].size
    counts = np.clip(np.round(np.array(shares) * num_pixels).astype(int), 1, num_pixels - 1)

    def score_after(count):
        is_removed = positions < count
        filled = filled_in(images, is_removed) + noise_level * noise
        return score(apply(variables, jnp.where(is_removed[..., None], filled, images)), targets)

    scores = jax.lax.map(score_after, jnp.asarray(counts)).T
    return FlippingCurve(scores, scores.mean(1), jnp.asarray(shares, scores.dtype))


def filled_in(
    images: Images, is_removed: Shaped[Array | np.ndarray, "batch height width"]
) -> Float[Array, "batch height width channels"]:
    """Returns the images with the removed pixels as weighted means of their eight neighbors, all at once.

    x_i = Σ_j w_ij x_j / Σ_j w_ij at each removed pixel i: one sparse symmetric system an image and channel,
    solved by conjugate gradients. Of an image without a known pixel it has no solution.

    Args:
        images: (batch, height, width, channels); the values of removed pixels do not matter.
        is_removed: (batch, height, width), true where a pixel is removed.

    Example:
        >>> images = jnp.array([[[[0.2], [0.9], [0.4]]]])
        >>> print(filled_in(images, jnp.array([[[False, True, False]]])).ravel().round(3))
        [0.2 0.3 0.4]
    """
    images = jnp.asarray(images)
    unknown = is_removed[..., None]

    def neighbors(values):
        padded = jnp.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = values.shape[1:3]
        return sum(
            float(_WEIGHTS[r, c]) * padded[:, r : r + height, c : c + width]
            for r in range(3)
            for c in range(3)
            if _WEIGHTS[r, c]
        )

    degree = neighbors(jnp.ones_like(images[..., :1]))
    known = jnp.where(unknown, 0, images)

    def system(values):  # the Laplacian of the removed pixels; the identity elsewhere
        return jnp.where(unknown, degree * values - neighbors(jnp.where(unknown, values, 0)), values)

    right = jnp.where(unknown, neighbors(known), 0)
    tolerance = 1e-12 if images.dtype == jnp.float64 else 1e-5
    solved = jax.scipy.sparse.linalg.cg(
        system, right, tol=tolerance, maxiter=2000, M=lambda values: values / degree
    )[0]
    return jnp.where(unknown, solved, images)
