"""All metrics of explanations by name, with what they need and which direction is better.

A metric is any function that takes, by these names, what it needs of

    apply, variables        the network
    images, targets         what is explained; the targets are classes or what the score takes
    masks                   (batch, height, width), the true region, of a source that has it
    heatmaps                (batch, height, width) in [0, 1]: the map by its sign convention
    attributions            (batch, height, width), signed: the map, summed over channels
    channel_attributions    (batch, height, width, channels): the map, as the method returned it
    method                  the method itself, of the signature of all methods, to be called again
    score                   what is explained
    key                     one an image

and options of its own, and returns one value an image: (batch,), or (batch, k), of which the mean counts, or
a `FlippingCurve`, of which the area counts. A function of one's own needs no registration; `Metric(function,
is_better="lower")` says that lower values are better. `functools.partial` fills in options.
"""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vexplain._checks import check_choice
from vexplain._text import aligned
from vexplain.attribution import probability
from vexplain.evaluation._infidelity import infidelity
from vexplain.evaluation._pixel_flipping import faithfulness_estimate, pixel_flipping
from vexplain.evaluation._road import road
from vexplain.evaluation.axioms import completeness_gap, input_invariance, non_sensitivity
from vexplain.evaluation.concentration import complexity, effective_complexity, relevance_mass, sparseness
from vexplain.evaluation.faithfulness import (
    faithfulness_correlation,
    monotonicity,
    monotonicity_correlation,
    sensitivity_n,
)
from vexplain.evaluation.localization import (
    iou_area,
    iou_at_mask_area,
    iou_curve,
    mask_auc,
    pointing_game,
    relevance_rank,
    top_k_precision,
)
from vexplain.evaluation.map_randomization import (
    efficient_parameter_randomization,
    parameter_randomization,
    random_logit,
)
from vexplain.evaluation.region_flipping import irof, region_perturbation, selectivity
from vexplain.evaluation.relative_stability import (
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
)
from vexplain.evaluation.robustness import (
    avg_sensitivity,
    continuity,
    local_lipschitz_estimate,
    max_sensitivity,
)

GIVEN = (
    "apply",
    "variables",
    "images",
    "targets",
    "masks",
    "heatmaps",
    "attributions",
    "channel_attributions",
    "method",
    "score",
    "key",
)
DIRECTIONS = ("higher", "lower")

MetricFn = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric, and how its values are read.

    Attributes:
        function: takes some of `GIVEN` by name, and options.
        is_better: "higher" or "lower" values.
        kind: "faithfulness", "robustness", "localization", "complexity", "randomization" or "axiom"; "" for
            one's own.
        reference: authors and year of the paper.
    """

    function: MetricFn
    is_better: str = "higher"
    kind: str = ""
    reference: str = ""

    def __post_init__(self):
        if not callable(self.function):
            raise TypeError(f"function is a {type(self.function).__name__}: expected a function")
        check_choice("is_better", self.is_better, DIRECTIONS)

    @property
    def needs(self) -> tuple[str, ...]:
        """What it takes of `GIVEN`, options that were filled in left out."""
        filled = self.function.keywords if isinstance(self.function, functools.partial) else {}
        names = inspect.signature(self.function).parameters
        return tuple(name for name in GIVEN if name in names and name not in filled)


Metrics = Mapping[str, str | MetricFn | Metric] | Sequence[str | MetricFn | Metric] | str | MetricFn | Metric


class MetricCatalog(dict[str, Metric]):
    """Metrics by name. `print` it for the table."""

    def __missing__(self, name: str) -> Metric:
        near = difflib.get_close_matches(str(name), self, n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise KeyError(f"no metric {name!r} in the catalog: expected one of {list(self)}{meant}")

    def __repr__(self) -> str:
        rows = [(name, m.kind, m.is_better, ", ".join(m.needs), m.reference) for name, m in self.items()]
        return aligned(("name", "kind", "better", "needs", "reference"), rows)


def _effective_complexity(heatmaps: Any) -> Any:
    return effective_complexity(heatmaps)  # in [0, 1], so that its threshold is the same for all methods


def _iou_area(heatmaps: Any, masks: Any) -> Any:
    return iou_area(iou_curve(heatmaps, masks))


_deletion = functools.partial(pixel_flipping, score=probability, num_steps=32)
_insertion = functools.partial(pixel_flipping, score=probability, num_steps=32, mode="insertion")
_FAITHFUL, _ROBUST, _LOCAL = "faithfulness", "robustness", "localization"
_COMPLEX, _RANDOM, _AXIOM = "complexity", "randomization", "axiom"

# fmt: off
METRICS = MetricCatalog({  # one row a metric; the papers in full are in the documentation of the functions
    "deletion": Metric(_deletion, "lower", _FAITHFUL, "Bach et al., 2015; Petsiuk et al., 2018"),
    "insertion": Metric(_insertion, "higher", _FAITHFUL, "Petsiuk et al., 2018"),
    "selectivity": Metric(selectivity, "lower", _FAITHFUL, "Montavon et al., 2018"),
    "region_perturbation": Metric(region_perturbation, "higher", _FAITHFUL, "Samek et al., 2017"),
    "irof": Metric(functools.partial(irof, score=probability), "higher", _FAITHFUL,
                   "Rieger and Hansen, 2020"),
    "road": Metric(road, "lower", _FAITHFUL, "Rong et al., 2022"),
    "faithfulness_correlation": Metric(faithfulness_correlation, "higher", _FAITHFUL, "Bhatt et al., 2020"),
    "mu_fidelity": Metric(functools.partial(faithfulness_correlation, regions=8, correlation="spearman"),
                          "higher", _FAITHFUL, "Bhatt et al., 2020; as in Xplique"),
    "faithfulness_estimate": Metric(functools.partial(faithfulness_estimate, num_steps=32), "higher",
                                    _FAITHFUL, "Alvarez-Melis and Jaakkola, 2018"),
    "sensitivity_n": Metric(sensitivity_n, "higher", _FAITHFUL, "Ancona et al., 2018"),
    "monotonicity": Metric(functools.partial(monotonicity, num_steps=32), "higher", _FAITHFUL,
                           "Arya et al., 2019"),
    "monotonicity_correlation": Metric(functools.partial(monotonicity_correlation, num_steps=32), "higher",
                                       _FAITHFUL, "Nguyen and Martínez, 2020"),
    "infidelity": Metric(functools.partial(infidelity, is_rescaled=True), "lower", _FAITHFUL,
                         "Yeh et al., 2019"),
    "local_lipschitz_estimate": Metric(local_lipschitz_estimate, "lower", _ROBUST,
                                       "Alvarez-Melis and Jaakkola, 2018"),
    "max_sensitivity": Metric(max_sensitivity, "lower", _ROBUST, "Yeh et al., 2019"),
    "avg_sensitivity": Metric(avg_sensitivity, "lower", _ROBUST, "Yeh et al., 2019"),
    "continuity": Metric(continuity, "lower", _ROBUST, "Montavon et al., 2018"),
    "relative_input_stability": Metric(relative_input_stability, "lower", _ROBUST, "Agarwal et al., 2022"),
    "relative_output_stability": Metric(relative_output_stability, "lower", _ROBUST, "Agarwal et al., 2022"),
    "relative_representation_stability": Metric(relative_representation_stability, "lower", _ROBUST,
                                                "Agarwal et al., 2022"),
    "iou_area": Metric(_iou_area, "higher", _LOCAL, "Oramas et al., 2019"),
    "iou_at_mask_area": Metric(iou_at_mask_area, "higher", _LOCAL, "this library"),
    "relevance_mass": Metric(relevance_mass, "higher", _LOCAL, "Arras et al., 2022"),
    "relevance_rank": Metric(relevance_rank, "higher", _LOCAL, "Arras et al., 2022"),
    "top_k_precision": Metric(functools.partial(top_k_precision, k=100), "higher", _LOCAL,
                              "Theiner et al., 2022"),
    "pointing_game": Metric(pointing_game, "higher", _LOCAL, "Zhang et al., 2016"),
    "mask_auc": Metric(mask_auc, "higher", _LOCAL, "Fawcett, 2006"),
    "sparseness": Metric(sparseness, "higher", _COMPLEX, "Chalasani et al., 2020"),
    "complexity": Metric(complexity, "lower", _COMPLEX, "Bhatt et al., 2020"),
    "effective_complexity": Metric(_effective_complexity, "lower", _COMPLEX, "Nguyen and Martínez, 2020"),
    "random_logit": Metric(random_logit, "lower", _RANDOM, "Sixt et al., 2020"),
    "parameter_randomization": Metric(parameter_randomization, "lower", _RANDOM, "Adebayo et al., 2018"),
    "efficient_parameter_randomization": Metric(efficient_parameter_randomization, "higher", _RANDOM,
                                                "Hedström et al., 2024"),
    "completeness_gap": Metric(completeness_gap, "lower", _AXIOM, "Sundararajan et al., 2017"),
    "non_sensitivity": Metric(non_sensitivity, "lower", _AXIOM, "Nguyen and Martínez, 2020"),
    "input_invariance": Metric(input_invariance, "lower", _AXIOM, "Kindermans et al., 2019"),
})
# fmt: on


def as_metrics(metrics: Metrics) -> dict[str, Metric]:
    """Returns metrics by name.

    Args:
        metrics: names of `METRICS`, functions, or `Metric`s, one or several; or these by name.

    Raises:
        KeyError: there is no metric of a name.
        ValueError: two have one name, or there is none.

    Example:
        >>> list(as_metrics(["sparseness", "complexity"]))
        ['sparseness', 'complexity']
    """
    if isinstance(metrics, str | Metric) or callable(metrics):
        metrics = [metrics]
    named = metrics.items() if isinstance(metrics, Mapping) else [(_name_of(m), m) for m in metrics]
    found: dict[str, Metric] = {}
    for name, metric in named:
        if name in found:
            raise ValueError(f"metrics: two are called {name!r}; pass a dict that names them")
        if isinstance(metric, str):
            metric = METRICS[metric]
        found[name] = metric if isinstance(metric, Metric) else Metric(metric)
    if not found:
        raise ValueError(f"metrics is empty: expected some of {list(METRICS)}")
    return found


def _name_of(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    function = metric.function if isinstance(metric, Metric) else metric
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
