"""The report of the main job: what it says, in which order, and the figures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classifier_report import PACKAGES, ablation_section, chosen_examples, features_section
from experiments.job import device_names
from vexplain.catalog import title_of
from vexplain.datasets import Source
from vexplain.evaluation import CEILING, CONTROLS, ExplainedNetwork, Score, heatmaps_of, make_sample
from vexplain.figures import (
    Picture,
    Report,
    Section,
    Table,
    explanation_sheet,
    iou_curves,
    package_versions,
    save_pictures,
    write_report,
)
from vexplain.relevance import FeatureView, Relevance, explain

PAPER = "relevant_features"

VARIANTS = {"single_6c": "the color of its petals", "double_12c": "which part of it has which color"}
LEARNED = 0.9  # accuracy on held-out images from which on the report says so


def write_figures_and_report(
    out: Path,
    apply: Any,
    network: ExplainedNetwork,
    views: Sequence[FeatureView],
    scores: Mapping[str, Score],
    methods: Mapping[str, Any],
    metrics: Mapping[str, Any],
    test: Source,
    *,
    num_explained: int,
) -> Path:
    """Writes `figures/*.png` and `report.html`, and returns the path of the report."""
    sections = [
        features_section(network.relevance, views, metrics),
        _explanations(apply, network, methods, metrics, test, num_explained),
        _scores(scores, metrics),
        ablation_section(metrics),
    ]
    report = Report(
        title=f"What a classifier learned of an8Flower ({metrics['variant']})",
        lead=_lead(network.relevance, scores, metrics),
        key_figures=_key_figures(scores, metrics),
        sections=sections,
        settings=metrics["settings"],
        versions=package_versions(PACKAGES) | {"devices": device_names()},
    )
    return write_report(out / "report.html", save_pictures(out / "figures", report))


def _lead(found: Relevance, scores: Mapping[str, Score], metrics: Mapping[str, Any]) -> str:
    methods = _methods(scores)
    union = sum(metrics["ablation"]["num_silenced"].values())
    return (
        f"{_learned(metrics['accuracy'], len(found.class_names), VARIANTS[metrics['variant']])} Of its "
        f"{metrics['num_candidates']} internal features, {union} are relevant for some class. This report "
        "shows what they look like, uses them to explain single predictions, and measures the explanations "
        f"against the part that truly carries the class: among {len(methods)} methods, the paper's is number "
        f"{methods.index(PAPER) + 1} by area under the IoU curve{_beaten_by(scores)}."
    )


def _learned(accuracy: float, num_classes: int, difference: str) -> str:
    """What the network can do, in words that its accuracy on held-out images bears out."""
    flowers = f"{num_classes} classes of a rendered flower, which differ by {difference}"
    right = f"{accuracy:.1%} of the held-out images are classified rightly"
    if accuracy >= LEARNED:
        return f"A small convolutional network learned to tell {flowers}: {right}."
    if accuracy > 2 / num_classes:
        return (
            f"A small convolutional network was trained on {flowers}, and tells them only in part: {right}, "
            f"where chance gives {1 / num_classes:.1%}. What it shows is what a half-trained network goes by."
        )
    return (
        f"A small convolutional network was trained on {flowers}, and did not learn to tell them: {right}, "
        f"where chance gives {1 / num_classes:.1%}. Train it longer before reading anything into this."
    )


def _methods(scores: Mapping[str, Score]) -> list[str]:
    """The names of the methods, best first; controls and the masks are none."""
    return [name for name in scores if name not in (*CONTROLS, CEILING)]


def _beaten_by(scores: Mapping[str, Score]) -> str:
    areas = {name: score.mean("IoU area") for name, score in scores.items()}
    above = [name for name in CONTROLS if name in areas and areas[name] > areas[PAPER]]
    return (
        f", below a control that knows nothing of the network ({' and '.join(map(title_of, above))})"
        if above
        else ""
    )


def _key_figures(scores: Mapping[str, Score], metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    counts, ablation = list(metrics["num_features"].values()), metrics["ablation"]
    best = _methods(scores)[0]
    area = {name: f"{scores[name].mean('IoU area'):.1%}" for name in (best, PAPER)}
    return [
        ("held-out accuracy", f"{metrics['accuracy']:.1%}", f"on {metrics['num_test_images']} images"),
        (
            "features a class",
            f"{min(counts)}–{max(counts)}",
            f"of {metrics['num_candidates']}, mu = {metrics['settings']['mu']:g}",
        ),
        ("IoU area, paper's recipe", area[PAPER], f"best: {title_of(best)}, {area[best]}"),
        (
            "accuracy without them",
            f"{ablation['relevant']:.1%}",
            f"{np.mean(ablation['random']):.1%} without as many random ones",
        ),
    ]


def _explanations(apply, network, methods, metrics, test: Source, num_explained: int) -> Section:
    batch = test[chosen_examples(test, num_explained)]
    images = jnp.asarray(batch["images"])
    counts = metrics["num_features"]
    if empty := [name for name, count in counts.items() if not count]:
        return Section(
            "Why these images got their class",
            (f"No feature is relevant for {', '.join(empty)} at this mu: choose a larger one.",),
        )
    variables, found = network
    options = {"relevance": found, "num_features": metrics["settings"]["num_features"]}
    explanation = explain(apply, variables, images, **options)
    rivals = {name: method for name, method in methods.items() if name in ("grad_cam", "guided_backprop")}
    sample = make_sample(apply, network, batch, key=jax.random.key(0), targets=explanation.targets)
    maps = heatmaps_of(apply, rivals)(network, sample)
    rivals = {title_of(name): np.asarray(heatmaps) for name, heatmaps in maps.items()}
    sheet = explanation_sheet(
        images, explanation, found, masks=batch["masks"], rivals=rivals, labels=batch["labels"]
    )
    return Section(
        "Why these images got their class",
        (
            "Test images with the outline of the part that carries the class. The heatmap of an image is the "
            "pixel-wise maximum over the maps of the features that are relevant for its class and strong in "
            "this image; r is relevance times response. Grad-CAM and guided backpropagation for comparison.",
        ),
        (
            Picture(
                sheet,
                "Test images and their explanations.",
                "A row of heatmaps for each test image.",
                "explanations",
            ),
        ),
    )


def _scores(scores: Mapping[str, Score], metrics: Mapping[str, Any]) -> Section:
    shown = ("IoU area", "best IoU")
    rows = [
        (title_of(name), *(f"{100 * s.mean(k):.1f} ± {100 * s.standard_error(k):.1f}" for k in shown), s.sign)
        for name, s in scores.items()
    ]
    curves = {name: s for name, s in scores.items() if name != CEILING}
    table = Table(
        ("method", "IoU area, %", "best IoU, %", "sign of a signed map"),
        rows,
        f"Mean over {metrics['num_test_images']} test images ± standard error. Class activation maps are of "
        f"layer {metrics['cam_layer']}; the true mask shows what a perfect map would reach.",
        bold_rows=(list(scores).index(PAPER),),
    )
    return Section(
        "Do the heatmaps cover the right part?",
        (
            "Each heatmap is cut at 101 thresholds, and the intersection over union with the true part is "
            "followed along. The area under this curve is the paper's score; its maximum says how good a map "
            "is at its best threshold. A random map and the edges of the image know nothing of the network.",
        ),
        (
            Picture(
                iou_curves(curves),
                "Mean IoU over the thresholds; area ± standard error beside the names.",
                "Curves of the IoU of each method over thresholds.",
                "iou-curves",
            ),
        ),
        table,
    )
