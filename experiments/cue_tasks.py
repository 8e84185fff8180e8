"""Tasks of rendered objects whose class is one cue: what a shape, a texture or a color is found by.

The background of the difficulties is gray ("plain"), random colored waves ("textured"), or gray with small
objects of other shapes, textures and colors on it ("clutter"). The truth is the whole object.
"""

from pathlib import Path

from experiments.trained_tasks import TaskSettings, trained_task
from vexplain.datasets import Source, in_memory
from vexplain.datasets.cue_objects import CueSource
from vexplain.evaluation import Task
from vexplain.streaming.devices import Mesh

DIFFICULTIES = {
    "plain": {},
    "textured": {"background": "textured"},
    "clutter": {"clutter": 5},
}
_NUM_CLASSES = 6


def cue_task(
    settings: TaskSettings,
    *,
    directory: str | Path = "runs/ground_truth",
    mesh: Mesh | None = None,
    description: str | None = None,
) -> Task:
    """Returns the task of one network on objects whose class is one cue; the two others are independent.

    The fold is the seed of the images: training and test images of a set are always different ones.

    Args:
        settings: which objects, and which network.
        directory: where networks are kept.
        mesh: devices; one if left out.
        description: of the progress bar of training; `None` shows none.

    Raises:
        KeyError: an unknown difficulty.
        ValueError: an unknown variant or network, or numbers out of range.
    """
    options = {"directory": directory, "mesh": mesh, "description": description}
    train = _source(settings, "train", settings.num_per_class)
    test = _source(settings, "test", -(-settings.num_test // _NUM_CLASSES))
    return trained_task(settings, in_memory(train), in_memory(test), **options)


def _source(settings: TaskSettings, split: str, num_per_class: int) -> Source:
    return CueSource(
        **{settings.variant: 1.0},
        **DIFFICULTIES[settings.difficulty],
        num_per_class=num_per_class,
        size=settings.size,
        samples=settings.samples,
        seed=settings.seed + settings.fold,
        split=split,
    )
