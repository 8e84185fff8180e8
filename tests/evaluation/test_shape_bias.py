"""Shape bias: the published observers to the last digit, intervals of SciPy, and what has no bias."""

import csv
import lzma
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vexplain.datasets import ArraySource, imagenet_categories
from vexplain.evaluation import (
    category_probabilities,
    decision_counts,
    shape_bias,
    wilson_interval,
)
from vexplain.streaming import fold_epoch
from vexplain.streaming.devices import data_mesh

DECISIONS = Path(__file__).parent.parent / "references" / "cue_conflict_decisions.csv.xz"
PUBLISHED = {  # decisions for the shape, for the texture, and the bias in percent
    "trained:alexnet": (182, 537, 25.31),
    "trained:vgg16": (84, 828, 9.21),
    "trained:resnet50": (162, 572, 22.07),
    "trained:resnet50_train_60_epochs": (586, 141, 80.61),
    "vgg": (130, 625, 17.22),
}


@pytest.fixture(scope="module")
def published():
    with lzma.open(DECISIONS, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def people(published):
    return [name for name in published if name.startswith("subject")]


# --- the published observers --------------------------------------------------------------------------------


@pytest.mark.parametrize("observer", PUBLISHED)
def test_a_published_network(published, observer):
    found = shape_bias(published[observer], shapes=published["shape"], textures=published["texture"])
    by_shape, by_texture, percent = PUBLISHED[observer]
    assert (found.num_images, found.num_by_shape, found.num_by_texture) == (1200, by_shape, by_texture)
    assert round(100 * found.bias, 2) == percent
    assert found.decided == (by_shape + by_texture) / 1200
    assert found.shape_accuracy + found.texture_accuracy == pytest.approx(found.decided)


def test_all_people(published):
    observers = people(published)
    assert len(observers) == 10
    decisions = np.concatenate([published[name] for name in observers])
    shapes, textures = (np.tile(published[cue], 10) for cue in ("shape", "texture"))
    found = shape_bias(decisions, shapes=shapes, textures=textures)
    assert (found.num_by_shape, found.num_by_texture) == (9236, 398)
    assert round(100 * found.bias, 2) == 95.87


def test_every_observer_counted_row_by_row(published):
    """All 26, overall and by category, against a loop."""
    observers = [name for name in published if name not in ("stimulus", "shape", "texture")]
    assert len(observers) == 26
    names = list(imagenet_categories())
    for observer in observers:
        found = shape_bias(
            published[observer],
            shapes=published["shape"],
            textures=published["texture"],
            class_names=names,
        )
        counts = {name: [0, 0, 0] for name in names}
        for shape, texture, decided in zip(
            published["shape"], published["texture"], published[observer], strict=True
        ):
            if shape != texture:
                counts[shape][0] += 1
                counts[shape][1] += decided == shape
                counts[shape][2] += decided == texture
        parts = {n: [p.num_images, p.num_by_shape, p.num_by_texture] for n, p in found.categories.items()}
        assert parts == counts
        assert [found.num_images, found.num_by_shape, found.num_by_texture] == np.sum(
            list(counts.values()), axis=0
        ).tolist()


def test_integers_and_names_are_the_same(published):
    names = list(imagenet_categories())
    numbers = {
        cue: np.array([names.index(v) if v in names else -1 for v in published[cue]])
        for cue in ("subject-03", "shape", "texture")
    }
    by_name = shape_bias(published["subject-03"], shapes=published["shape"], textures=published["texture"])
    by_number = shape_bias(
        numbers["subject-03"], shapes=numbers["shape"], textures=numbers["texture"], class_names=names
    )
    assert by_name == by_number
    assert (numbers["subject-03"] == -1).any()  # a person may give no answer


# --- networks -----------------------------------------------------------------------------------------------


def test_a_network_is_counted_as_its_decisions_are():
    """A linear network on one pixel of 7 channels, padded batches on two devices, broken images left out."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(37, 1, 1, 7)).astype(np.float32)
    weights = rng.normal(size=(7, 5)).astype(np.float32)
    shapes, textures = rng.integers(0, 5, (2, 37))
    source = ArraySource(
        images,
        shapes,
        class_names=tuple("abcde"),
        extras={"shapes": shapes, "textures": textures},
    )
    init, update = decision_counts(lambda variables, x: x.mean((1, 2)) @ variables, 5)
    counts = fold_epoch(update, init(), source, batch_size=8, constants=weights, mesh=data_mesh(2))
    found = shape_bias(counts, class_names="abcde")
    decisions = (images[:, 0, 0].astype(np.float64) @ weights).argmax(1)
    assert found == shape_bias(decisions, shapes=shapes, textures=textures, class_names="abcde")
    assert found.num_images == (shapes != textures).sum()
    batch = {"images": images, "shapes": shapes, "textures": textures, "weights": np.arange(37) < 20}
    part = shape_bias(update(init(), batch, weights), class_names="abcde")
    assert part == shape_bias(decisions[:20], shapes=shapes[:20], textures=textures[:20], class_names="abcde")


def test_decisions_of_imagenet_are_by_the_mean_probability():
    """The 16 categories: a class of a small category outweighs a sum over many classes of a large one."""
    categories = imagenet_categories()
    logits = np.random.default_rng(1).normal(size=(4, 1000)).astype(np.float32)
    logits[0, list(categories["dog"])] += 1.0  # the largest sum, not the largest mean
    logits[0, categories["knife"]] += 4.0
    exponentials = np.exp(logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    expected = np.stack([probabilities[:, list(c)].mean(1) for c in categories.values()], axis=1)
    found = np.asarray(category_probabilities(logits, categories))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    names = list(categories)
    sums = [probabilities[0, list(c)].sum() for c in categories.values()]
    assert (names[int(found[0].argmax())], names[int(np.argmax(sums))]) == ("knife", "dog")
    init, update = decision_counts(lambda variables, images: jnp.asarray(logits), categories)
    decided = found.argmax(1)
    batch = {"images": np.zeros((4, 1, 1, 3)), "shapes": decided, "textures": (decided + 1) % 16}
    counted = shape_bias(update(init(), batch, None), class_names=names)
    assert counted.bias == counted.decided == 1.0


def test_the_sixteen_categories():
    categories = imagenet_categories()
    sizes = {name: len(classes) for name, classes in categories.items()}
    assert list(sizes) == sorted(sizes)
    assert (len(sizes), sum(sizes.values())) == (16, 207)
    assert (sizes["dog"], sizes["bird"], sizes["truck"], sizes["airplane"]) == (109, 49, 8, 1)
    every = [n for classes in categories.values() for n in classes]
    assert len(set(every)) == len(every)
    assert 0 <= min(every) <= max(every) < 1000


# --- intervals, and what is not defined ---------------------------------------------------------------------


def test_intervals_are_those_of_scipy():
    counts = [(0, 1), (0, 40), (3, 7), (182, 719), (39, 40), (40, 40)]
    for coverage in (0.5, 0.95):
        low, high = wilson_interval(*np.array(counts).T, coverage=coverage)
        expected = [stats.binomtest(k, n).proportion_ci(coverage, method="wilson") for k, n in counts]
        np.testing.assert_allclose(low, [e.low for e in expected], atol=1e-12)
        np.testing.assert_allclose(high, [e.high for e in expected], atol=1e-12)
    assert np.isnan(wilson_interval(0, 0)).all()


def test_an_interval_at_one_is_not_a_point():
    found = shape_bias(np.zeros(40, int), shapes=np.zeros(40, int), textures=np.ones(40, int))
    assert (found.bias, found.interval[1]) == (1.0, 1.0)
    assert 0.9 < found.interval[0] < 0.95


def test_without_a_decision_for_either_cue_the_bias_is_nan_and_says_so():
    found = shape_bias(["car", "na"], shapes=["cat", "dog"], textures=["dog", "cat"])
    assert np.isnan([found.bias, *found.interval]).all()
    assert (found.decided, found.shape_accuracy, found.texture_accuracy) == (0, 0, 0)
    assert "The bias is not defined: none of 2 images was decided by either cue." in repr(found)
    assert "none decided" in found._repr_html_()


def test_a_category_without_a_decision_is_nan_and_does_not_count():
    found = shape_bias([0, 2, 2], shapes=[0, 1, 1], textures=[1, 0, 0], class_names="abc")
    assert found.bias == 1
    assert np.isnan(found.categories["b"].bias)
    assert np.isnan(found.categories["c"].decided)  # no image has its shape
    text = repr(found).splitlines()
    assert text[0].split()[:2] == ["category", "shape"]
    assert "none decided" in text[4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], {}), "shapes and textures are needed"),
        (([0, 1], {"shapes": [0], "textures": [1]}), "expected one entry an image"),
        (([0], {"shapes": [1], "textures": [1]}), "no image has a shape of one category and a texture of an"),
        (([], {"shapes": [], "textures": []}), "entries that are no category|no image has a shape"),
        (([-2], {"shapes": [0], "textures": [1]}), "decisions has entries that are no category"),
        (([0], {"shapes": [-1], "textures": [1]}), "shapes has entries that are no category"),
        (([0.5], {"shapes": [0], "textures": [1]}), "decisions has entries that are no category"),
        (
            (["a"], {"shapes": ["a"], "textures": ["c"], "class_names": ["a", "b"]}),
            "textures has entries that are no category",
        ),
        (
            ([3], {"shapes": [0], "textures": [1], "class_names": "abc"}),
            "class_names has 3 names: expected 4",
        ),
        (([0], {"shapes": [0], "textures": [1], "coverage": 1.0}), "coverage is 1.0"),
        (([0], {"shapes": ["a"], "textures": ["b"]}), "decisions are no names, but shapes are"),
    ],
)
def test_mistakes_are_named(arguments, message):
    decisions, options = arguments
    with pytest.raises(ValueError, match=message):
        shape_bias(decisions, **options)


def test_mistakes_about_networks_are_named():
    batch = {"images": np.zeros((2, 1, 1, 3)), "shapes": np.array([0, 1]), "textures": np.array([1, 0])}
    init, update = decision_counts(lambda variables, images: images.mean((1, 2)) * variables, 3)
    counts = update(init(), batch, jnp.nan)
    with pytest.raises(ValueError, match="the logits of 2 images hold NaN"):
        shape_bias(counts)
    with pytest.raises(ValueError, match="shapes and textures are given beside DecisionCounts"):
        shape_bias(counts, shapes=[0], textures=[1])
    with pytest.raises(ValueError, match="class_names has 4 names: expected 3, one a category"):
        shape_bias(update(init(), batch, 1.0), class_names="abcd")
    init, update = decision_counts(lambda variables, images: jnp.zeros((2, 1000)), 16)
    with pytest.raises(
        ValueError, match=r"categories is 16, and the network has 1000 classes: pass the clas"
    ):
        update(init(), batch, None)
    with pytest.raises(ValueError, match="categories has 1: expected 2 or more"):
        decision_counts(lambda variables, images: images, 1)
    for categories, message in (
        ({"a": [0], "b": [3]}, "'b' has the classes .3.: expected one or more of 0 to 2"),
        ({"a": [0], "b": []}, "'b' has the classes"),
        ({"a": [0, 1], "b": [1]}, "share a class"),
    ):
        with pytest.raises(ValueError, match=message):
            category_probabilities(np.zeros((1, 3)), categories)
    with pytest.raises(ValueError, match="successes is 3 of trials 2"):
        wilson_interval(3, 2)
