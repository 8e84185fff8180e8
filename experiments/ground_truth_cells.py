"""What the ground-truth benchmark keeps of each cell, so that an interrupted run goes on where it was."""

import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vexplain._files import write_whole
from vexplain.evaluation import Score

Key = tuple[str, str, str]  # of a cell: variant, difficulty, network


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """The scores of all methods on the test images of one fold, and what they show of a few.

    Attributes:
        scores: by method.
        accuracy: of the network on these images.
        seconds: that scoring took, compilation included.
        images: (n, height, width, 3) of the gallery.
        masks: (n, height, width).
        maps: (n, height, width) in [0, 1], by method.
    """

    scores: Mapping[str, Score]
    accuracy: float
    seconds: float
    images: np.ndarray
    masks: np.ndarray
    maps: Mapping[str, np.ndarray]


def save_cell(path: Path, cell: Cell) -> None:
    """Writes a cell in one piece.

    Args:
        path: ends in .npz.
        cell: what was found.
    """
    arrays: dict[str, Any] = {
        "methods": list(cell.scores),
        "shown": list(cell.maps),
        "signs": [score.sign for score in cell.scores.values()],
        "numbers": np.array([cell.accuracy, cell.seconds]),
        "images": np.round(cell.images * 255).astype(np.uint8),
        "masks": np.round(cell.masks * 255).astype(np.uint8),
    }
    for n, score in enumerate(cell.scores.values()):
        arrays[f"curve/{n}"] = score.curve
        arrays |= {f"values/{n}/{name}": values.astype(np.float32) for name, values in score.values.items()}
    for n, maps in enumerate(cell.maps.values()):
        arrays[f"map/{n}"] = np.round(np.asarray(maps) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_whole(path, buffer.getvalue())


def load_cell(path: Path) -> Cell:
    """Returns what `save_cell` wrote."""
    with np.load(path) as file:
        found = dict(file)
    scores = {}
    for n, (name, sign) in enumerate(zip(found["methods"].tolist(), found["signs"].tolist(), strict=True)):
        prefix = f"values/{n}/"
        values = {
            k.removeprefix(prefix): v.astype(np.float64) for k, v in found.items() if k.startswith(prefix)
        }
        scores[name] = Score(values, found[f"curve/{n}"], sign)
    maps = {name: found[f"map/{n}"] / 255 for n, name in enumerate(found["shown"].tolist())}
    accuracy, seconds = found["numbers"].tolist()
    return Cell(scores, accuracy, seconds, found["images"] / 255, found["masks"] / 255, maps)


def over_folds(cells: Sequence[Cell]) -> dict[str, Score]:
    """Returns the scores of the images of all folds together, for the methods that every fold has.

    Args:
        cells: of one variant, difficulty and network.
    """
    names = [name for name in cells[0].scores if all(name in cell.scores for cell in cells)]
    return {name: _joined([cell.scores[name] for cell in cells]) for name in names}


def _joined(scores: Sequence[Score]) -> Score:
    values = {name: np.concatenate([s.values[name] for s in scores]) for name in scores[0].values}
    signs = dict.fromkeys(s.sign for s in scores)
    return Score(values, np.mean([s.curve for s in scores], axis=0), " / ".join(signs))


def mean_and_deviation(cells: Sequence[Cell], method: str, score: str) -> tuple[float, float]:
    """Returns the mean over folds of a mean over images, and its standard deviation (0 for one fold).

    Args:
        cells: the folds.
        method: by name.
        score: by name.
    """
    means = [cell.scores[method].mean(score) for cell in cells]
    return float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def ranked_methods(cells: Mapping[Any, Sequence[Cell]], score: str) -> list[str]:
    """Returns the methods that every cell has, the largest mean over cells and folds first."""
    every = list(itertools.chain(*cells.values()))
    names = [name for name in every[0].scores if all(name in cell.scores for cell in every)]
    return sorted(names, key=lambda name: -np.mean([cell.scores[name].mean(score) for cell in every]))
