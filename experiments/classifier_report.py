"""The report of a classifier on images without masks, and the sections that every such report has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.classifier_figures import ablation_bars
from experiments.job import device_names
from vexplain.attribution import cam_layer, grad_cam, normalize_heatmaps
from vexplain.datasets import Source
from vexplain.figures import (
    Picture,
    Report,
    Section,
    class_sheet,
    explanation_sheet,
    package_versions,
    save_pictures,
    weights_overview,
    write_report,
)
from vexplain.relevance import FeatureView, Relevance, explain, num_features
from vexplain.transforms import layers

PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def write_classifier_report(
    out: Path,
    title: str,
    job: Any,
    found: Relevance,
    views: Sequence[FeatureView],
    metrics: Mapping[str, Any],
) -> Path:
    """Writes `figures/*.png` and `report.html`, and returns the path of the report."""
    ablation, counts = metrics["ablation"], list(metrics["num_features"].values())
    union = sum(ablation["num_silenced"].values())
    report = Report(
        title=title,
        lead=(
            f"{job.name} on {job.data}: {metrics['accuracy']:.1%} of {metrics['num_test_images']} held-out "
            f"images are classified rightly. Of its {metrics['num_candidates']} internal features that were "
            f"searched, {union} are relevant for some class. This report shows what they look like, what the "
            "network can do without them, and why some images got their class."
        ),
        key_figures=[
            ("held-out accuracy", f"{metrics['accuracy']:.1%}", f"on {metrics['num_test_images']} images"),
            (
                "features a class",
                f"{min(counts)}–{max(counts)}",
                f"of {metrics['num_candidates']}, mu = {metrics['settings']['mu']:g}",
            ),
            (
                "accuracy without them",
                f"{ablation['relevant']:.1%}",
                f"{np.mean(ablation['random']):.1%} without as many random ones",
            ),
        ],
        sections=[
            features_section(found, views, metrics),
            _explanations(job, found, metrics),
            ablation_section(metrics),
        ],
        settings=metrics["settings"],
        versions=package_versions(PACKAGES) | {"devices": device_names()},
    )
    return write_report(out / "report.html", save_pictures(out / "figures", report))


def chosen_examples(test: Source, num_examples: int) -> np.ndarray:
    """Returns indices of test images, as many of each class as of any other, the classes in order."""
    labels = np.concatenate([test[[n]]["labels"] for n in range(min(len(test), 20 * len(test.class_names)))])
    share = max(num_examples // len(test.class_names), 1)
    return np.concatenate([np.flatnonzero(labels == c)[:share] for c in range(len(test.class_names))])


def features_section(found: Relevance, views: Sequence[FeatureView], metrics: Mapping[str, Any]) -> Section:
    """What was learned: the weights of the classes, and a sheet for each class that `views` has."""
    overview = Picture(
        weights_overview(found),
        "Relevance weights of each class; a number is the channel, a color the layer.",
        "Stacked bars of relevance weights by class.",
        "weights",
    )
    sheets = [
        Picture(
            class_sheet(views, class_name=name),
            f"{name}: each relevant feature, its average image, and the crops that excite it most.",
            f"Average images and crops of the features relevant for {name}.",
            f"features-{name.replace(' ', '-')}",
        )
        for name in found.class_names
        if any(view.class_name == name for view in views)
    ]
    return Section(
        "What was learned",
        (
            "A sparse, non-negative regression predicts the network's own decision from the energy of every "
            "channel of every layer; the few channels that get a weight are relevant for the class. Each is "
            "shown by the average of what its receptive field saw where it fired most, over the "
            f"{metrics['settings']['num_exemplars']} images of the class that excite it most: as they are "
            "(paper), and after they were aligned (ours), one average for each kind of them.",
            f"All {len(found.class_names)} regressions are solved to a relative duality gap of "
            f"{metrics['relative_duality_gap']:.0e}.",
        ),
        (overview, *sheets),
    )


def ablation_section(metrics: Mapping[str, Any]) -> Section:
    """Whether the network needs these features: bars of accuracy without them."""
    ablation = metrics["ablation"]
    groups = {
        "features of all layers": (ablation["relevant"], ablation["random"]),
        "of convolutions only": (ablation["relevant_conv"], ablation["random_conv"]),
    }
    return Section(
        "Does the network need these features?",
        (
            "Accuracy after the relevant features of all classes are set to zero, and after as many random "
            f"features of the same layers are ({len(ablation['random'])} draws).",
        ),
        (
            Picture(
                ablation_bars(metrics["accuracy"], groups),
                "Accuracy without relevant features and without random ones.",
                "Bars of accuracies under ablation.",
                "ablation",
            ),
        ),
    )


def _explanations(job: Any, found: Relevance, metrics: Mapping[str, Any]) -> Section:
    settings = metrics["settings"]
    batch = job.test[chosen_examples(job.test, settings["num_explained"])[: settings["num_explained"]]]
    images = jnp.asarray(batch["images"])
    predicted = job.apply(job.variables, images).argmax(-1)
    has_features = np.asarray(num_features(found))[np.asarray(predicted)] > 0
    title = "Why these images got their class"
    if not has_features.any():
        return Section(title, (f"No feature is relevant at mu = {settings['mu']:g}: choose a larger one.",))
    images, labels = images[has_features], np.asarray(batch["labels"])[has_features]
    explanation = explain(
        job.apply,
        job.variables,
        images,
        relevance=found,
        num_features=settings["num_features"],
        on_uncovered="gradient",
    )
    layer = cam_layer(layers(job.apply, job.variables, images))
    maps = grad_cam(job.apply, job.variables, images, explanation.targets, layer=layer)
    rivals = {f"Grad-CAM ({layer})": np.asarray(normalize_heatmaps(maps))}
    sheet = explanation_sheet(images, explanation, found, rivals=rivals, labels=labels)
    return Section(
        title,
        (
            "The heatmap of an image is the pixel-wise maximum over the maps of the features that are "
            "relevant for its class and strong in this image; r is relevance times response. Grad-CAM for "
            "comparison; without masks of the truth nothing here says which is right.",
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
