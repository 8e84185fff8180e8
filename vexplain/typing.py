"""Shape aliases, so that a public signature reads like the sentence that describes it.

Every public image, mask, map and score in this library is in [0, 1] unless its name says otherwise;
attributions are signed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

AnyArray: TypeAlias = Shaped[Array | np.ndarray, "..."]  # of JAX or NumPy, checked where it is used
Images: TypeAlias = Float[Array | np.ndarray, "batch height width channels"]  # [0, 1]
ImagesLike: TypeAlias = Any  # the same, checked where it is used: an error names what is wrong
Targets: TypeAlias = Any  # classes, or what a score takes; see vexplain.catalog
Masks: TypeAlias = Float[Array | np.ndarray, "batch height width"]  # coverage of the true region, [0, 1]
Heatmaps: TypeAlias = Float[Array, "batch height width"]  # non-negative, [0, 1]
Attributions: TypeAlias = Float[Array, "batch height width channels"]  # signed
Labels: TypeAlias = Int[Array | np.ndarray, " batch"]
Logits: TypeAlias = Float[Array, "batch classes"]
Activations: TypeAlias = Mapping[str, Shaped[Array, "batch ..."]]  # by layer name
Key: TypeAlias = PRNGKeyArray
Variables: TypeAlias = PyTree  # everything a network needs besides its input
Batch: TypeAlias = Mapping[str, Any]  # arrays of NumPy or JAX:  # "images", "labels", "weights", ...

ApplyFn: TypeAlias = Callable[[Variables, Images], Logits]
ScoreFn: TypeAlias = Callable[[Variables, Images, Any], Float[Array, " batch"]]

__all__ = [
    "Activations",
    "AnyArray",
    "ApplyFn",
    "Array",
    "Attributions",
    "Batch",
    "Float",
    "Heatmaps",
    "Images",
    "ImagesLike",
    "Int",
    "Key",
    "Labels",
    "Logits",
    "Masks",
    "PyTree",
    "ScoreFn",
    "Shaped",
    "Targets",
    "Variables",
]
