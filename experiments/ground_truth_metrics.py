"""The ground-truth benchmark in numbers: what `metrics.json` and the files of the checks hold."""

from typing import Any

import numpy as np

from experiments.ground_truth_cells import Cell, Key, over_folds
from vexplain.evaluation import CEILING, Checks, compare

OURS = "relevant_evidence"


def summary(cells: dict[Key, list[Cell]], checks: dict[Key, dict[str, Any]]) -> dict[str, Any]:
    """What `metrics.json` says of cells and checks, and who is significantly above or below our method.

    Args:
        cells: of each variant, difficulty and network, the folds.
        checks: what the files of the checked cells hold.
    """
    named = {", ".join(key): folds for key, folds in cells.items()}
    joined = {name: over_folds(folds) for name, folds in named.items()}
    rivals = [m for m in next(iter(joined.values())) if m not in (OURS, CEILING)]
    versus = {name: compare({name: scores}, OURS) for name, scores in joined.items()}
    return {
        "accuracy": {name: [cell.accuracy for cell in folds] for name, folds in named.items()},
        "scoring_seconds": {name: [cell.seconds for cell in folds] for name, folds in named.items()},
        "scores": {
            name: {
                m: {s: [cell.scores[m].mean(s) for cell in folds] for s in score.values}
                for m, score in folds[0].scores.items()
            }
            for name, folds in named.items()
        },
        "above_ours": {
            name: {
                s: [m for m, found in by_method.items() if m in rivals and found[s].is_above]
                for s in ("IoU area", "best IoU", "part-effect correlation")
                if s in next(iter(by_method.values()))
            }
            for name, by_method in versus.items()
        },
        "mean_difference_to_ours": {
            m: {s: d._asdict() for s, d in by_score.items()} for m, by_score in compare(joined, OURS).items()
        },
        "checks": {", ".join(key): found for key, found in checks.items()},
    }


def plain_checks(checks: Checks) -> dict[str, Any]:
    """What the file of a checked cell holds: means over the images, and the verdict.

    Args:
        checks: what `check_task` returned.
    """

    def of(name: str) -> dict[str, Any]:
        score, flips = checks.sanity.scores[name], checks.flipping[name]
        labels = score.random_labels
        return {
            "randomized": list(score.randomized.means),
            "share_gone": score.randomized.share_gone,
            "cascade": {group: list(s.means) for group, s in score.stages["cascading"].items()},
            "independent": {group: list(s.means) for group, s in score.stages["independent"].items()},
            "draws": [list(s.means) for s in score.draws],
            "controls": {control: list(s.means) for control, s in score.controls.items()},
            "random_labels": None if labels is None else list(labels.means),
            "other_class": list(score.other_class.means),
            "trained_area": float(np.mean(score.trained_area)),
            "randomized_area": float(np.mean(score.randomized_area)),
            "passes": score.passes,
            "failures": list(score.failures),
            "undecided": list(score.undecided),
            "reasons": list(score.reasons),
            "deletion": {baseline: float(np.mean(values)) for baseline, values in flips.deletion.items()},
            "insertion": {baseline: float(np.mean(values)) for baseline, values in flips.insertion.items()},
        }

    jaccard = {
        mode: {group: _mean_of_numbers(values) for group, values in by_group.items()}
        for mode, by_group in checks.sanity.jaccard.items()
    }
    labels = checks.sanity.random_labels_jaccard
    return {
        "methods": {name: of(name) for name in checks.sanity.scores},
        "jaccard": jaccard,
        "random_labels_jaccard": None if labels is None else _mean_of_numbers(labels),
    }


def _mean_of_numbers(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN where all are."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else float("nan")
