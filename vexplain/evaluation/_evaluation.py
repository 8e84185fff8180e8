"""The values of many methods by many metrics: means, intervals, paired differences, and how sure a rank is.

The images are drawn again many times, with replacement and the same for all methods, and it is counted how
often the order of the methods changes.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._files import plain_json
from vexplain._text import aligned, html_table
from vexplain.evaluation.comparison import (
    Difference,
    bootstrap_means,
    check_resampling,
    compare,
)
from vexplain.evaluation.metrics import Metric
from vexplain.evaluation.scores import Score


class Ranking(NamedTuple):
    """The methods by one metric, the best first, and what the bootstrap says of their order."""

    methods: tuple[str, ...]
    ranks: dict[str, tuple[float, float]]  # by method, the interval of its rank, from 1
    changes: dict[tuple[str, str], float]  # by neighbors, the share of resamplings that swap them
    share_changed: (
        float  # of the resamplings with any change of the order; NaN of a single image, and all above
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The values of methods by metrics, image by image. `print` it for the table.

    Attributes:
        values: by metric and method, (images,); those of an image that a metric leaves undefined (NaN) for
            one method are left out for all.
        metrics: by name.
        num_images: that were explained.
        num_resamples: of the bootstrap.
        coverage: of the intervals.
        seed: of the bootstrap.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    metrics: Mapping[str, Metric]
    num_images: int
    num_resamples: int = 1000
    coverage: float = 0.95
    seed: int = 0

    def __post_init__(self):
        check_resampling(self.num_resamples, self.coverage)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(next(iter(self.values.values())))

    def mean(self, metric: str, method: str) -> float:
        """The mean over images; NaN where the metric is defined for none."""
        values = self._of(metric)[method]
        return float(values.mean()) if len(values) else float("nan")

    def intervals(self, metric: str) -> dict[str, tuple[float, float]]:
        """The percentile bootstrap interval of the mean, by method; NaN where there is a single image."""
        means = self._resampled(metric)
        levels = [(1 - self.coverage) / 2, (1 + self.coverage) / 2]
        low, high = np.quantile(means, levels, axis=0)
        return {name: (float(low[n]), float(high[n])) for n, name in enumerate(self.methods)}

    def differences(self, metric: str, reference: str) -> dict[str, Difference]:
        """The mean of each other method minus that of a reference on the same images, with its interval."""
        values = self._of(metric)
        if reference not in values:
            raise KeyError(f"reference: no method {reference!r}: expected one of {list(values)}")
        scores = {name: Score({metric: of}, np.zeros(0), "") for name, of in values.items()}
        options = {"num_resamples": self.num_resamples, "coverage": self.coverage, "seed": self.seed}
        found = compare({"source": scores}, reference, **options)
        return {name: of[metric] for name, of in found.items()}

    def ranking(self, metric: str) -> Ranking:
        """The methods from the best to the worst, and how stable that is."""
        names, means = self.methods, self._resampled(metric)
        sign = -1 if self.metrics[metric].is_better == "higher" else 1
        order = np.argsort([sign * self.mean(metric, name) for name in names], kind="stable")
        sorted_means = sign * means[:, order]
        inverted = np.where(np.isnan(means[0, 0]), np.nan, sorted_means[:, 1:] < sorted_means[:, :-1])
        places = (sorted_means[:, :, None] > sorted_means[:, None, :]).sum(2) + 1
        places = np.where(np.isnan(means[0, 0]), np.nan, places)
        levels = [(1 - self.coverage) / 2, (1 + self.coverage) / 2]
        low, high = np.quantile(places, levels, axis=0)
        sorted_names = tuple(names[n] for n in order)
        neighbors = itertools.pairwise(sorted_names)
        return Ranking(
            sorted_names,
            {name: (float(low[n]), float(high[n])) for n, name in enumerate(sorted_names)},
            {pair: float(inverted[:, n].mean()) for n, pair in enumerate(neighbors)},
            float(inverted.max(1, initial=0).mean()),
        )

    def to_dict(self) -> dict[str, Any]:
        """All that the table shows and more, of plain numbers and texts."""
        found = {}
        for metric, description in self.metrics.items():
            if not len(self._of(metric)[self.methods[0]]):
                found[metric] = {"is_better": description.is_better, "num_images": 0}
                continue
            ranking, intervals = self.ranking(metric), self.intervals(metric)
            found[metric] = {
                "is_better": description.is_better,
                "num_images": len(self._of(metric)[self.methods[0]]),
                "means": {name: self.mean(metric, name) for name in self.methods},
                "intervals": {name: list(interval) for name, interval in intervals.items()},
                "order": list(ranking.methods),
                "rank_intervals": {name: list(interval) for name, interval in ranking.ranks.items()},
                "share_of_resamplings_with_another_order": ranking.share_changed,
            }
        facts = {
            "num_images": self.num_images,
            "coverage": self.coverage,
            "num_resamples": self.num_resamples,
        }
        return facts | {"metrics": found}

    def to_json(self) -> str:
        return json.dumps(plain_json(self.to_dict()), indent=2)

    def __str__(self) -> str:
        header, rows = self._table()
        return aligned(header, rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(*self._table(), caption=f"Means over {self.num_images} images")

    def _table(self) -> tuple[list[str], list[list[str]]]:
        arrows = {"higher": "↑", "lower": "↓"}
        header = ["method", *(f"{name} {arrows[m.is_better]}" for name, m in self.metrics.items())]
        columns = []
        for metric in self.metrics:
            if not len(self._of(metric)[self.methods[0]]):
                columns.append([*("undefined" for _ in self.methods), ""])
                continue
            intervals, ranking = self.intervals(metric), self.ranking(metric)
            is_known = len(self._of(metric)[self.methods[0]]) > 1
            cells = [
                f"{self.mean(metric, name):.3g}"
                + (f" [{intervals[name][0]:.3g}, {intervals[name][1]:.3g}]" if is_known else "")
                + (" *" if name == ranking.methods[0] else "")
                for name in self.methods
            ]
            columns.append([*cells, f"{ranking.share_changed:.0%}" if is_known else "one image"])
        names = [*self.methods, "order changes"]
        return header, [list(row) for row in zip(names, *columns, strict=True)]

    def _of(self, metric: str) -> Mapping[str, np.ndarray]:
        if metric not in self.values:
            raise KeyError(f"metric: no {metric!r} here: expected one of {list(self.values)}")
        return self.values[metric]

    def _resampled(self, metric: str) -> np.ndarray:
        """The means of each resampling, (resamples, methods); NaN of a single image."""
        values = np.stack(list(self._of(metric).values()), axis=1)
        if not len(values):
            raise ValueError(f"metric {metric!r} is undefined for every image")
        key = jax.random.key(self.seed)
        strata = [jnp.asarray(values, jnp.float32)]
        means = np.asarray(bootstrap_means(key, strata, num_resamples=self.num_resamples), np.float64)
        return means if len(values) > 1 else np.full_like(means, np.nan)
