"""The pictures of the pages of the methods: every method on the same two rendered flowers.

A small network is trained on rendered flowers within the build. What was drawn is kept in a folder named by a
hash of the library's source, so that a build without a change of the library draws nothing.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

SIZE = 64  # px, of the images
SCALE, GAP = 3, 8  # of the pixels in a picture; between its images, px
SHOWN = (7, 100)  # which flowers, of two classes


def draw(methods: Mapping[str, Any], folder: Path, *, say: Callable[[str], None]) -> Path:
    """Draws the picture of each method, unless it is there; returns the folder that they are in.

    Args:
        methods: the catalog.
        folder: that holds a folder of pictures for each state of the library.
        say: is told what takes a while.
    """
    folder = folder / _state_of_the_library()
    missing = [method for method in methods.values() if not (folder / f"{method.name}.png").exists()]
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    say("training a network on rendered flowers")
    apply, variables, relevance, images = trained_network()
    transformer = None
    _tile(images[-1]).save(folder / "image_small.png")
    for method in missing:
        say(f"drawing {method.title}")
        if "attention" in method.needs:
            transformer = transformer or trained_transformer()
            maps = heatmaps_of(method, *transformer, images, relevance)
        else:
            maps = heatmaps_of(method, apply, variables, images, relevance)
        _strip(images, maps).save(folder / f"{method.name}.png")
        _tile(maps[-1]).save(folder / f"{method.name}_small.png")
    return folder


def trained_network() -> tuple[Any, Any, Any, np.ndarray]:
    """Returns `apply`, its variables and relevant features, and two images."""
    from flax import nnx

    import vexplain as vx
    from vexplain import classifiers

    model = classifiers.FlowerNet(6, image_size=SIZE, widths=(8, 16, 64), rngs=nnx.Rngs(0))
    apply, variables, flowers = _trained(model, num_epochs=12)
    relevance = vx.learn_relevance(apply, variables, flowers, mu=5)
    return apply, variables, relevance, np.asarray(flowers[list(SHOWN)]["images"])


def trained_transformer() -> tuple[Any, Any]:
    """Returns `apply` and the variables of a small Vision Transformer, trained on the same flowers."""
    from flax import nnx

    from vexplain.classifiers.vit import VisionTransformer

    size = {"image_size": SIZE, "patch_size": 8, "depth": 3, "width": 48, "num_heads": 3}
    return _trained(VisionTransformer(6, **size, rngs=nnx.Rngs(0)), num_epochs=30)[:2]


def _trained(model: Any, num_epochs: int) -> tuple[Any, Any, Any]:
    import optax

    import vexplain as vx
    from vexplain import classifiers, datasets
    from vexplain.datasets.an8flower import RenderedSource

    flowers = datasets.in_memory(RenderedSource("single_6c", num_per_class=40, size=SIZE, samples=2))
    apply, variables = classifiers.functionalize(model)
    batches, num_steps = datasets.shuffled_batches(flowers, 40, seed=0)
    init, update = classifiers.supervised(apply, optax.adam(3e-3))
    variables = vx.fold(update, init(variables), batches, num_steps=num_epochs * num_steps).variables
    return apply, variables, flowers


def heatmaps_of(method: Any, apply: Any, variables: Any, images: np.ndarray, relevance: Any) -> np.ndarray:
    """Returns heatmaps (batch, height, width) in [0, 1]; of signed attributions the positive part."""
    import jax

    from vexplain.attribution import normalize_heatmaps, positive_heatmaps

    needed = {"key": jax.random.key(0), "relevance": relevance}
    options = {name: value for name, value in needed.items() if name in method.needs}
    maps = method.function(apply, variables, images, **options)
    return np.asarray(positive_heatmaps(maps) if maps.ndim == 4 else normalize_heatmaps(maps))


def _state_of_the_library() -> str:
    import vexplain

    found = hashlib.sha256()
    for path in (*sorted(Path(vexplain.__file__).parent.rglob("*.py")), Path(__file__)):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _tile(values: np.ndarray) -> Image.Image:
    colors = colormaps["inferno"](values)[..., :3] if values.ndim == 2 else values
    image = Image.fromarray(np.round(255 * colors).astype(np.uint8))
    return image.resize((SIZE * SCALE, SIZE * SCALE), Image.Resampling.NEAREST)


def _strip(images: np.ndarray, maps: np.ndarray) -> Image.Image:
    """Image, map, image, map, on a transparent ground."""
    tiles = [_tile(values) for pair in zip(images, maps, strict=True) for values in pair]
    side = SIZE * SCALE
    strip = Image.new("RGBA", (len(tiles) * (side + GAP) - GAP, side))
    for number, tile in enumerate(tiles):
        strip.paste(tile, (number * (side + GAP), 0))
    return strip
