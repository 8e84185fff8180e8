"""Small made-up results of odd sizes, as the figures receive them."""

import numpy as np
from matplotlib.image import BboxImage
from matplotlib.text import Text

from vexplain.evaluation import CONTROLS, Score
from vexplain.figures.curves import PAPER
from vexplain.relevance import Explanation, FeatureView, Relevance, TopFeatures

CLASSES = ("cat", "dog & <co>", "cost $5 or $6")
LAYOUT = (("conv_1", 2), ("stage/conv_2", 3), ("dense_1", 2))


def relevance():
    weights = np.zeros((7, 3))
    weights[[0, 3], 0] = 3.0, 1.0
    weights[[3, 5, 6], 1] = 0.5, 2.0, -0.25
    return Relevance(weights, np.zeros(3), np.ones(3), np.asarray(4.0), LAYOUT, CLASSES)


def view(class_name="cat", *, layer="conv_1", channel=1, weight=3.0, num=9, shape=(5, 7, 3), **more):
    crops = np.random.default_rng(0).uniform(0, 1, (num, *shape)).astype(np.float32)
    fields = {"average": crops.mean(0), "crops": crops, "indices": np.arange(num), "values": np.ones(num)}
    return FeatureView(class_name, layer, channel, weight, **({"sees_whole_image": False} | fields | more))


def explained(num_images=3, num_maps=2, shape=(6, 8)):
    """Images, masks, and an explanation whose last slot of the last image is empty."""
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 1, (num_images, *shape, 3)).astype(np.float32)
    maps = rng.uniform(0, 1, (num_images, num_maps, *shape)).astype(np.float32)
    valid = np.ones((num_images, num_maps), bool)
    valid[-1, -1] = False
    indices = np.tile(np.array([3, 0, 5])[:num_maps], (num_images, 1))
    features = TopFeatures(indices, np.where(valid, 0.125, 0.0).astype(np.float32), valid)
    targets = np.arange(num_images) % 3
    logits = np.eye(3, dtype=np.float32)[targets]
    masks = np.zeros((num_images, *shape), np.float32)
    masks[:, 2:4, 3:6] = 1
    return images, masks, Explanation(maps.max(1), maps, features, targets, logits)


def scores():
    areas = {"gradient": 0.2, CONTROLS[0]: 0.05, PAPER: 0.35, "Grad-CAM (conv_2)": 0.4, CONTROLS[1]: 0.1}
    return {
        name: Score(
            {"IoU area": area + np.array([-0.01, 0.01]), "best IoU": 1.5 * area + np.array([-0.02, 0.02])},
            np.linspace(2 * area, 0, 101),
            "positive part",
        )
        for name, area in areas.items()
    }


def texts(figure):
    """All that is written on a figure."""
    found = [text.get_text() for text in figure.texts]
    return found + [text.get_text() for axes in figure.axes for text in axes.texts]


def canvas(figure):
    """The pixels of a figure, (height, width, 3) in [0, 255]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def tiles(figure):
    """The pictures without axes, in the order in which they were drawn."""
    return [artist for artist in figure.artists if isinstance(artist, BboxImage)]


def pixels_of(figure, axes):
    """The pixels that axes, or a picture without, cover."""
    box = axes.get_window_extent()
    drawn = canvas(figure)
    height = len(drawn)
    return drawn[int(height - box.y1) : int(height - box.y0), int(box.x0) : int(box.x1)]


def overlaps_or_clips(figure):
    """Pairs of texts that touch each other, and texts that leave the figure."""
    figure.canvas.draw()
    written = [t for t in figure.findobj(Text) if t.get_text().strip()]
    written = [t for t in written if t.get_visible()]
    boxes = [t.get_window_extent() for t in written]
    width, height = figure.bbox.size
    found = [
        t.get_text()
        for t, box in zip(written, boxes, strict=True)
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for n, a in enumerate(boxes):
        for m, b in enumerate(boxes[:n]):
            across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            if across > 1 and down > 2:
                found.append((written[m].get_text(), written[n].get_text()))
    return found
