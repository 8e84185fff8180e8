"""The tables of the dissection of a network whose channels are parts of the flower."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import dissection
from vexplain.datasets import ArraySource
from vexplain.datasets.an8flower import part_names
from vexplain.evaluation import Task
from vexplain.relevance import Relevance


def apply(variables, images):
    return jax.nn.relu(jax.nn.relu(images).mean((1, 2)) @ variables)


def test_relevant_features_are_named_with_the_part_that_they_detect(monkeypatch, capsys):
    masks = np.zeros((4, 5, 8, 8), bool)
    for part in range(5):  # each has a row of its own
        masks[:, part, part] = True
    images = np.moveaxis(masks[:, 2:], 1, 3).astype(np.float32)  # channels: leaves, petals, disc
    images[..., 2] = 0
    source = ArraySource(images, np.arange(4) % 2, class_names=("a", "b"), extras={"part_masks": masks})
    weights = np.array([[0.5, 0], [0, 2], [0, 1], [3, 0]])
    layout = (("relu_1", 3), ("relu_2", 1))
    relevance = Relevance(weights, np.zeros(2), np.zeros(2), 3.0, layout, ("a", "b"))
    task = Task("flowers", apply, jnp.ones((3, 2)), relevance, source, source, 0.75)
    monkeypatch.setattr(dissection, "flower_task", lambda settings, directory: task)
    found = dissection.main(dataclasses.replace(dissection.PRESETS["smoke"][1], level=0.05))
    assert list(found) == ["relu_1"]
    assert found["relu_1"].concepts == part_names("plain")
    printed = capsys.readouterr().out
    assert "accuracy 75.0% on 4 images" in printed
    assert "| `relu_1` | 3 | leaves 1, petals 1 |" in printed
    rows = [line for line in printed.splitlines() if line.startswith("| `relu_1[") or "`relu_2" in line]
    assert rows == [
        "| `relu_2[0]` | a (3.00) | no rows and columns |  |",
        "| `relu_1[1]` | b (2.00) | petals | 1.000 |",
        "| `relu_1[2]` | b (1.00) | none | 0.000 |",
        "| `relu_1[0]` | a (0.50) | leaves | 1.000 |",
    ]
