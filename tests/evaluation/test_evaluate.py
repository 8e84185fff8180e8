"""One pass for any methods by any metrics: a good map before a bad one in each, and what the numbers are."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain import evaluation
from vexplain.attribution import input_x_gradient
from vexplain.datasets import ArraySource
from vexplain.evaluation import METRICS, Metric, evaluate

NUM_IMAGES = 5
# In steps of 1/64, so that sums are exact; the class is told by a bright square.
_RNG = np.random.default_rng(0)
MASKS = np.zeros((NUM_IMAGES, 16, 16), np.float32)
MASKS[:, 3:9, 4:10] = 1
IMAGES = _RNG.integers(8, 33, (NUM_IMAGES, 16, 16, 1)).astype(np.float32) / 64 + MASKS[..., None] * 31 / 64
WEIGHTS = {"dense": np.zeros((256, 2), np.float32)}
WEIGHTS["dense"][MASKS[0].ravel() > 0, 0] = _RNG.integers(1, 5, 36) / 64
WEIGHTS["dense"][-40:, 1] = -1 / 16


@pytest.fixture(scope="module")
def source():
    return ArraySource(IMAGES, np.zeros(NUM_IMAGES, int), MASKS, class_names=("a", "b"))


def apply(variables, images):
    return images.reshape(len(images), -1) @ variables["dense"]


def wild(apply, variables, images, targets=None, *, score=None, key=None):
    """A map that changes fast with the image, and does not depend on the network."""
    return jnp.sin(42 * jnp.asarray(images))


def sometimes(heatmaps, images):
    """A metric of one's own, which leaves some images undefined."""
    return jnp.where(images[:, 0, 0, 0] > 0.3, heatmaps.sum((1, 2)), jnp.nan)


SMALL = {  # options for images of 16 × 16 pixels
    "selectivity": {"regions": 4},
    "region_perturbation": {"regions": 4, "num_steps": 8},
    "irof": {"regions": 4},
    "mu_fidelity": {"regions": 4, "num_samples": 20},
    "faithfulness_correlation": {"num_samples": 20},
    "sensitivity_n": {"num_samples": 20, "shares": (0.1, 0.4)},
    "monotonicity_correlation": {"num_samples": 2, "num_steps": 8},
    "infidelity": {"num_samples": 20},
    "non_sensitivity": {"regions": 4, "num_samples": 2},
    "top_k_precision": {"k": 20},
    "local_lipschitz_estimate": {"num_samples": 2},
    "max_sensitivity": {"num_samples": 2},
    "avg_sensitivity": {"num_samples": 2},
    "relative_input_stability": {"num_samples": 2},
    "relative_output_stability": {"num_samples": 2},
    "relative_representation_stability": {"num_samples": 2, "layer": "dense_1"},
    "continuity": {"max_shift": 2},
}


def with_options(name):
    metric = METRICS[name]
    function = functools.partial(metric.function, **SMALL.get(name, {}))
    return Metric(function, metric.is_better, metric.kind, metric.reference)


@pytest.fixture(scope="module")
def found(source):
    metrics = {name: with_options(name) for name in METRICS} | {"sometimes": sometimes}
    methods = {"wild": wild, "good": input_x_gradient}
    return evaluate(methods, metrics, apply, WEIGHTS, source, batch_size=2, num_resamples=200)


@pytest.mark.parametrize("name", METRICS)
def test_a_good_map_is_before_a_bad_one(name, found):
    ranking = found.ranking(name)
    if name == "monotonicity":  # no weight is negative: every order rises
        assert [found.mean(name, method) for method in found.methods] == [1, 1]
        return
    assert ranking.methods == ("good", "wild")
    assert ranking.share_changed < 0.05
    assert found.intervals(name)["good"] != found.intervals(name)["wild"]


def test_values_are_those_of_the_functions(found):
    targets = np.zeros(NUM_IMAGES, int)
    maps = input_x_gradient(apply, WEIGHTS, IMAGES, targets)[..., 0]
    expected = {
        "sparseness": evaluation.sparseness(maps),
        "selectivity": evaluation.selectivity(apply, WEIGHTS, IMAGES, targets, maps, regions=4).area,
        "completeness_gap": np.zeros(NUM_IMAGES),
        "random_logit": evaluation.random_logit(
            input_x_gradient, apply, WEIGHTS, IMAGES, targets, key=jax.random.key(3)
        ),  # two classes: whatever is drawn is the other one
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found.values[name]["good"], values, rtol=1e-5, atol=1e-5, err_msg=name)
        assert found.values[name]["good"].shape == (NUM_IMAGES,)


def test_the_table_and_json_have_all(found):
    text = str(found)
    assert text.splitlines()[0].split()[:3] == ["method", "deletion", "↓"]
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["wild", "good", "order"]
    facts = json.loads(found.to_json())
    assert list(facts["metrics"]) == [*METRICS, "sometimes"]
    irof = facts["metrics"]["irof"]
    assert irof["order"] == ["good", "wild"]
    assert irof["intervals"]["good"][0] <= irof["means"]["good"] <= irof["intervals"]["good"][1]
    difference = found.differences("irof", "wild")["good"]
    assert difference.mean == pytest.approx(irof["means"]["good"] - irof["means"]["wild"], abs=1e-5)
    assert difference.is_above


def test_how_often_the_order_changes_by_hand():
    """Of one image in three the order is the other: a resampling changes it where it holds that one twice."""
    values = {"m": {"a": np.array([1.0, 1.0, 0.0]), "b": np.array([0.0, 0.0, 1.0])}}
    found = evaluation.Evaluation(values, {"m": Metric(evaluation.sparseness)}, 3, num_resamples=4000)
    ranking = found.ranking("m")
    assert ranking.methods == ("a", "b")
    assert ranking.share_changed == pytest.approx(7 / 27, abs=0.03)
    assert ranking.changes == {("a", "b"): ranking.share_changed}
    assert ranking.ranks == {"a": (1, 2), "b": (1, 2)}


def test_an_image_without_a_value_is_left_out_for_all_methods(found):
    count = int((IMAGES[:, 0, 0, 0] > 0.3).sum())
    assert 0 < count < NUM_IMAGES
    assert {len(values) for values in found.values["sometimes"].values()} == {count}
    assert json.loads(found.to_json())["metrics"]["sometimes"]["num_images"] == count


def test_mistakes_are_named(source):
    call = functools.partial(evaluate, {"wild": wild}, apply=apply, variables=WEIGHTS, source=source)
    with pytest.raises(KeyError, match=r"no metric 'sparsness' in the catalog.*did you mean 'sparseness'"):
        call(metrics="sparsness")
    with pytest.raises(ValueError, match=r"metrics\['relative_representation_stability'\] needs 'layer'"):
        call(metrics="relative_representation_stability")
    with pytest.raises(ValueError, match=r"metrics\['mine'\] returned \(\): expected one value an image"):
        call(metrics={"mine": lambda heatmaps: heatmaps.sum()})
    without = ArraySource(IMAGES, np.zeros(NUM_IMAGES, int), class_names=("a",))
    with pytest.raises(ValueError, match=r"source has no masks, which metrics\['mask_auc'\] needs"):
        evaluate({"wild": wild}, "mask_auc", apply, WEIGHTS, without)


def test_a_bootstrap_that_cannot_be_is_refused(source):
    call = functools.partial(evaluate, {"wild": wild}, "sparseness", apply, WEIGHTS, source=source)
    with pytest.raises(ValueError, match=r"coverage is 95.0: expected a number in \(0, 1\), as 0.95"):
        call(coverage=95.0)
    with pytest.raises(ValueError, match="num_resamples is 0: expected at least 1"):
        call(num_resamples=0)
    with pytest.raises(ValueError, match="source: it holds no image"):
        call(source=ArraySource(IMAGES[:0], np.zeros(0, int), class_names=("a",)))


class Own:
    """A source of one's own, which says nothing of what it was asked for."""

    class_names = ("a",)

    def __init__(self, **arrays):
        self.arrays = {"images": IMAGES, "labels": np.zeros(NUM_IMAGES, np.int32), "masks": MASKS} | arrays

    def __len__(self):
        return len(self.arrays["images"])

    def __getitem__(self, indices):
        return {name: values[indices] for name, values in self.arrays.items()}


def test_what_a_source_of_ones_own_gives_is_checked(caplog):
    def call(**arrays):
        return evaluate({"wild": wild}, ["relevance_rank", "sparseness"], apply, WEIGHTS, Own(**arrays))

    with pytest.raises(ValueError, match=r"images go from .*: expected .*divide 8-bit images by 255"):
        call(images=IMAGES * 255)
    with pytest.raises(ValueError, match="source: 5 of 5 images have 'masks' outside"):
        call(masks=MASKS * 255)
    with pytest.raises(ValueError, match=r"source: masks of shape \(5, 8, 8\): expected \(5, 16, 16\)"):
        call(masks=MASKS[:, ::2, ::2])
    with pytest.raises(ValueError, match="source: 1 of 5 images have 'targets' that are no class"):
        call(targets=np.array([0, 1, 2, 1, 0]))
    found = call(masks=MASKS * (np.arange(NUM_IMAGES) > 1)[:, None, None])
    assert [len(of["wild"]) for of in found.values.values()] == [NUM_IMAGES - 2, NUM_IMAGES]
    assert "2 of 5 images have a mask without a region and are left out of relevance_rank" in caplog.text


def test_one_image_has_no_interval():
    one = ArraySource(IMAGES[:1], np.zeros(1, int), class_names=("a",))
    found = evaluate({"wild": wild, "input_x_gradient": input_x_gradient}, "sparseness", apply, WEIGHTS, one)
    assert np.isnan([*found.intervals("sparseness").values()]).all()
    assert np.isnan(found.ranking("sparseness").share_changed)
    assert "[" not in str(found)
    assert json.loads(found.to_json())["metrics"]["sparseness"]["intervals"]["wild"] == [None, None]
    assert not found.differences("sparseness", "wild")["input_x_gradient"].is_above


def test_the_page_of_metrics_has_each():
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text("utf-8")
    assert [name for name in METRICS if f"`{name}`" not in page] == []
