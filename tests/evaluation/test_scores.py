"""Scores of hand-made maps in closed form, whatever the batches and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation import own
from vexplain import attribution, evaluation
from vexplain.attribution import absolute_heatmaps, positive_heatmaps
from vexplain.datasets import ArraySource, epoch_batches, subset
from vexplain.evaluation import best_iou, iou_area, iou_curve
from vexplain.streaming import fold
from vexplain.streaming.devices import data_mesh

NUM_IMAGES, HEIGHT, WIDTH = 7, 6, 5


def apply(variables, images):
    return images.mean((1, 2)) * variables


@pytest.fixture(scope="module")
def source():
    """The masks are the first channel of the images, so that a made-up method may cheat."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(NUM_IMAGES, HEIGHT, WIDTH, 3)).astype(np.float32)
    masks = np.zeros((NUM_IMAGES, HEIGHT, WIDTH), np.float32)
    for n in range(NUM_IMAGES):
        masks[n, n % 3 : n % 3 + 2, : 1 + n % 4] = 1
    images[..., 0] = masks
    return ArraySource(images, np.zeros(NUM_IMAGES, int), masks, class_names=("a", "b", "c"))


ONE = evaluation.ExplainedNetwork(1.0)


def scores_of(methods, num_images, *, network=apply, seed=0):
    functions = own.methods(methods)
    return evaluation.heatmap_scores(network, functions, num_images=num_images, seed=seed)


def scored(methods, source, *, batch_size=4, num_devices=1, seed=0, network=apply, variables=1.0):
    init, update = scores_of(methods, len(source), network=network, seed=seed)
    batch_fn, num_steps = epoch_batches(source, batch_size)
    return fold(
        update,
        init(),
        batch_fn,
        num_steps=num_steps,
        constants=evaluation.ExplainedNetwork(variables),
        mesh=data_mesh(num_devices),
    )


def summary(*args, **options):
    return evaluation.summarize(scored(*args, **options))


def curves(maps, source):
    return jax.jit(iou_curve)(maps, jnp.asarray(source.masks))


def mask_of(images):
    return images[..., 0]


def two_levels(variables, images, targets, keys):
    """1 on the mask, a half on the whole image but one corner."""
    return jnp.maximum(mask_of(images), 0.5).at[:, -1, -1].set(0)


def test_scores_of_hand_made_maps(source):
    found = summary(
        {
            "perfect": lambda v, x, t, k: mask_of(x),
            "constant": lambda v, x, t, k: jnp.full(x.shape[:3], 0.3),
            "two levels": two_levels,
            "opposite": lambda v, x, t, k: 1 - mask_of(x),
        },
        source,
    )
    coverage = source.masks.mean((1, 2))
    half = source.masks.sum((1, 2)) / (HEIGHT * WIDTH - 1)
    assert set(list(found)[:2]) == {"perfect", "true mask"}
    assert list(found)[2] == "two levels"
    # Trapezoids over thresholds 0, 0.01, ..., 1. Threshold 0 covers the image whatever the map.
    assert found["perfect"].mean("IoU area") == pytest.approx(
        np.mean((coverage + 1) / 2 + 99) / 100, rel=1e-5
    )
    assert found["perfect"].mean("best IoU") == pytest.approx(1)
    assert found["constant"].mean("IoU area") == pytest.approx(np.mean(coverage / 2) / 100, rel=1e-5)
    assert found["constant"].mean("best IoU") == pytest.approx(coverage.mean(), rel=1e-5)
    levels = (coverage + half) / 2 + 49 * half + (half + 1) / 2 + 49
    assert found["two levels"].mean("IoU area") == pytest.approx(np.mean(levels) / 100, rel=1e-5)
    np.testing.assert_allclose(
        found["two levels"].curve[[0, 50, 51]], [coverage.mean(), half.mean(), 1], 1e-5
    )
    assert not found["opposite"].curve[1:].any()
    assert {s.sign for s in found.values()} == {""}


def signed(sign_fn):
    return lambda v, x, t, k: mask_of(x)[..., None] * sign_fn(x)


def test_a_signed_map_is_scored_by_its_better_sign_over_all_images(source):
    loud = lambda v, x, t, k: jnp.stack([mask_of(x) - 1, 0.5 * mask_of(x)], -1)  # noqa: E731
    found = summary(
        {
            "negative": signed(lambda x: jnp.array([-1.0])),
            "positive": signed(lambda x: jnp.array([2.0])),
            "mostly noise": loud,
            "mixed": signed(lambda x: jnp.where(mask_of(x).sum((1, 2)) > 4, 1, -1)[:, None, None, None]),
        },
        source,
    )
    perfect = found["positive"].mean("IoU area")
    assert found["positive"].sign == ""  # both are the same map
    assert (found["negative"].sign, found["negative"].mean("IoU area")) == (
        "absolute value",
        pytest.approx(perfect),
    )
    assert found["mostly noise"].sign == "positive part"
    assert found["mostly noise"].mean("IoU area") == pytest.approx(perfect)
    assert (found["mixed"].sign, found["mixed"].mean("IoU area")) == (
        "absolute value",
        pytest.approx(perfect),
    )


def test_the_sign_is_chosen_once_and_not_for_every_image(source):
    """Where the mask is large its positive part is right, elsewhere its absolute value."""

    def either(variables, images, targets, keys):
        mask, is_large = mask_of(images), mask_of(images).sum((1, 2))[:, None, None] > 4
        return jnp.where(is_large, mask - 2 * (1 - mask), -mask)[..., None]

    found = summary({"either": either}, source)["either"]
    maps = either(None, jnp.asarray(source.images), None, None)
    by_sign = [attribution.positive_heatmaps(maps), attribution.absolute_heatmaps(maps)]
    areas = np.array([iou_area(curves(maps, source)) for maps in by_sign])
    assert found.mean("IoU area") == pytest.approx(areas.mean(1).max(), rel=1e-5)
    assert found.mean("IoU area") < areas.max(0).mean() - 0.1


def ramp(variables, images, targets, keys):
    return images[..., 1:]


@pytest.fixture(scope="module")
def of_ramp(source):
    return summary({"ramp": ramp}, source)


def test_means_and_standard_errors_are_those_of_a_loop(source, of_ramp):
    found = of_ramp["ramp"]
    curve = curves(jax.jit(attribution.positive_heatmaps)(source.images[..., 1:]), source)
    for values, mean, error in (
        (jax.jit(iou_area)(curve), found.mean("IoU area"), found.standard_error("IoU area")),
        (jax.jit(best_iou)(curve), found.mean("best IoU"), found.standard_error("best IoU")),
    ):
        values = np.asarray(values, np.float64)
        assert mean == pytest.approx(values.mean(), rel=1e-5)
        assert error == pytest.approx(values.std(ddof=1) / np.sqrt(NUM_IMAGES), rel=1e-3)
        assert error > 0
    np.testing.assert_allclose(found.curve, np.mean(curve, 0), rtol=1e-5)
    alone = summary({"ramp": ramp}, subset(source, [3]))["ramp"]
    assert alone.mean("IoU area") == pytest.approx(float(jax.jit(iou_area)(curve)[3]), rel=1e-5)
    assert alone.standard_error("IoU area") == 0
    with pytest.raises(KeyError, match="no score 'area' here: expected one of"):
        alone.mean("area")


def noise(variables, images, targets, keys):
    return attribution.random_map(None, None, images, key=keys)


def test_scores_do_not_depend_on_batches_or_devices(source):
    methods = {"noise": noise, "ramp": ramp}
    expected = scored(methods, source, batch_size=4)
    assert expected.num_scored == NUM_IMAGES
    np.testing.assert_array_equal(expected.weights, 1)
    for batch_size, num_devices in ((1, 1), (8, 8)):
        found = scored(methods, source, batch_size=batch_size, num_devices=num_devices)
        found = found._replace(num_rows=expected.num_rows)  # the padding of the last batch
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


def test_a_random_map_follows_from_the_seed_and_the_image(source):
    seen = []

    def kept(*arguments):
        maps = noise(*arguments)
        jax.debug.callback(lambda m: seen.append(np.asarray(m)), maps)
        return maps

    for seed in (0, 1):
        init, update = scores_of({"noise": kept}, 3, seed=seed)
        update = jax.jit(update)
        for chosen in ([0, 1, 2], [2, 5, 1]):
            jax.block_until_ready(update(init(), source[np.array(chosen)], ONE))
            jax.effects_barrier()
    first, second, other, _ = seen
    np.testing.assert_array_equal(second[[0, 2]], first[[2, 1]])
    assert not np.isclose(first, other).any()
    assert len(np.unique([first, second])) == 4 * HEIGHT * WIDTH  # images and pixels all differ


def test_maps_explain_the_predicted_class(source):
    """The labels are all 0; the network always says class 2."""
    seen = []

    def method(variables, images, targets, keys):
        jax.debug.callback(seen.append, targets)
        return mask_of(images)

    scored({"seen": method}, source, network=lambda v, x: x.mean((1, 2)) * v + jnp.array([0, 0, 9.0]))
    jax.effects_barrier()
    assert np.concatenate(seen).tolist() == [2] * 8


def test_nothing_scored_raises():
    init, _ = scores_of({"ramp": ramp}, 2)
    with pytest.raises(ValueError, match="no image was scored"):
        evaluation.summarize(init())


def test_a_map_that_is_not_finite_is_named_and_counted(source):
    def broken(variables, images, targets, keys):
        shares = mask_of(images) / (mask_of(images).sum((1, 2)) > 4)[:, None, None]
        return jnp.where(jnp.isnan(shares), jnp.inf, shares)[..., None]

    num_small = int((source.masks.sum((1, 2)) <= 4).sum())
    assert 0 < num_small < NUM_IMAGES
    state = scored({"broken": broken, "ramp": ramp}, source)  # the last batch holds a padded image
    assert {name: int(n) for name, n in state.num_not_finite.items()} == {
        "broken": num_small,
        "ramp": 0,
        "true mask": 0,
    }
    with pytest.raises(
        ValueError, match=f"heatmaps of 'broken' for {num_small} of 7 images; mend.*leave it out"
    ):
        evaluation.summarize(state)


def test_what_is_not_finite_in_padding_does_not_count(source):
    batch = dict(source[np.array([0, 1])], weights=np.array([1.0, 0.0], np.float32))
    nan = lambda v, x, t, k: mask_of(x).at[1].set(jnp.nan)  # noqa: E731
    init, update = scores_of({"nan": nan}, 2)
    state = jax.jit(update)(init(), batch, ONE)
    assert evaluation.summarize(state)["nan"].mean("best IoU") == pytest.approx(1)


def test_the_range_of_a_heatmap_does_not_count(source):
    found = summary(
        {"unit": lambda v, x, t, k: mask_of(x), "loud": lambda v, x, t, k: 70 * mask_of(x) - 30}, source
    )
    assert found["loud"].mean("IoU area") == pytest.approx(found["unit"].mean("IoU area"), rel=1e-5)


@pytest.mark.parametrize("left_out", ["masks", "indices"])
def test_a_batch_without_masks_or_indices_is_named(left_out, source):
    init, update = scores_of({"ramp": ramp}, 2)
    batch = {name: array for name, array in source[np.array([0, 1])].items() if name != left_out}
    with pytest.raises(KeyError, match=f"needs '{left_out}', got .*ArraySource"):
        update(init(), batch, ONE)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda v, x, t, k: mask_of(x)[:, 1:], r"shape \(2, 5, 5\): expected heatmaps \(2, 6, 5\)"),
        (lambda v, x, t, k: mask_of(x).sum((1, 2)), r"shape \(2,\)"),
        (lambda v, x, t, k: None, "NoneType"),
    ],
)
def test_maps_of_another_shape_name_their_method(method, message, source):
    init, update = scores_of({"mine": method}, 2)
    with pytest.raises(ValueError, match=r"methods\['mine'\] returned " + message):
        update(init(), source[np.array([0, 1])], ONE)


def test_each_score_of_each_image_is_that_of_its_metric(source, of_ramp):
    """Signed maps with zeros, so that pixels are tied; parts and effects come with the batches."""
    rng = np.random.default_rng(5)
    parts = (rng.uniform(size=(NUM_IMAGES, 3, HEIGHT, WIDTH)) > 0.6).astype(np.float32)
    effects = rng.normal(size=(NUM_IMAGES, 3)).astype(np.float32)
    extras = {"part_masks": parts, "part_effects": effects}
    with_parts = ArraySource(source.images, source.labels, source.masks, class_names=("a",), extras=extras)

    def tied(variables, images, targets, keys):
        return (images[..., 1:] + 0.2 * images[..., :1]).round(1) - 0.4

    found = summary({"tied": tied}, with_parts)
    by_sign = dict(zip(evaluation.SIGNS, (positive_heatmaps, absolute_heatmaps), strict=True))

    @jax.jit
    def computed(images, masks):
        heatmaps = by_sign[found["tied"].sign](tied(None, images, None, None))
        return {
            "IoU area": iou_area(iou_curve(heatmaps, masks)),
            "best IoU": best_iou(iou_curve(heatmaps, masks)),
            "IoU at mask area": evaluation.iou_at_mask_area(heatmaps, masks),
            "relevance mass": evaluation.relevance_mass(heatmaps, masks),
            "relevance rank": evaluation.relevance_rank(heatmaps, masks),
            "pointing game": evaluation.pointing_game(heatmaps, masks),
            "mask AUC": evaluation.mask_auc(heatmaps, masks),
            "part-effect correlation": evaluation.part_effect_correlation(heatmaps, parts, effects),
        }

    expected = computed(source.images, source.masks)
    assert tuple(found["tied"].values) == evaluation.SCORES
    assert set(expected) == set(evaluation.SCORES)
    for name, values in expected.items():
        np.testing.assert_allclose(found["tied"].values[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.ptp(found["tied"].values[name]) > 0
    for name in ("best IoU", "IoU at mask area", "relevance rank", "pointing game", "mask AUC"):
        np.testing.assert_allclose(found[evaluation.CEILING].values[name], 1, err_msg=name)
    assert "part-effect correlation" not in of_ramp[evaluation.CEILING].values


def test_an_image_of_weight_zero_has_no_value(source, of_ramp):
    """A broken file in the middle of a set."""
    batch = {**source[np.arange(NUM_IMAGES)], "weights": np.array([1, 1, 0, 1, 1, 0, 1], np.float32)}
    init, update = scores_of({"ramp": ramp}, NUM_IMAGES)
    found = evaluation.summarize(jax.jit(update)(init(), batch, ONE))["ramp"]
    whole = of_ramp["ramp"]
    kept = [0, 1, 3, 4, 6]
    for name, values in found.values.items():
        np.testing.assert_allclose(values, whole.values[name][kept], rtol=1e-5, atol=1e-7)


def test_targets_of_the_batch_are_explained(source):
    seen = []

    def method(variables, images, targets, keys):
        jax.debug.callback(seen.append, targets)
        return mask_of(images)

    init, update = scores_of({"seen": method}, 2)
    batch = {**source[np.array([0, 1])], "targets": np.array([2, 1])}
    jax.block_until_ready(jax.jit(update)(init(), batch, ONE))
    jax.effects_barrier()
    assert seen[0].tolist() == [2, 1]


def test_more_images_than_there_are_rows_are_named(source):
    init, update = evaluation.heatmap_scores(apply, {"ramp": own.method(ramp)}, num_images=3)
    state = init()
    for _ in range(2):
        state = jax.jit(update)(state, source[np.arange(2)], ONE)
    with pytest.raises(ValueError, match="num_images is 3: 4 images were scored"):
        evaluation.summarize(state)
    with pytest.raises(ValueError, match="num_images is 0: expected len"):
        scores_of({"ramp": ramp}, 0)
    with pytest.raises(ValueError, match="methods has 'true mask'"):
        scores_of({"true mask": ramp}, 1)
