"""Scores of hand-made maps in closed form, whatever the batches and devices; the usual methods by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transforms import networks
from vexplain import attribution, benchmark
from vexplain.datasets import ArraySource, epoch_batches, subset
from vexplain.explanation import explain
from vexplain.metrics import best_iou, iou_area, iou_curve
from vexplain.relevance import Relevance, candidate_layers, layout_of
from vexplain.sharding import data_mesh
from vexplain.streaming import fold
from vexplain.transforms import layers

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


def scored(methods, source, *, batch_size=4, num_devices=1, seed=0, network=apply, variables=1.0):
    init, update = benchmark.heatmap_scores(network, methods, seed=seed)
    batch_fn, num_steps = epoch_batches(source, batch_size)
    return fold(
        update,
        init(),
        batch_fn,
        num_steps=num_steps,
        constants=variables,
        mesh=data_mesh(num_devices),
    )


def summary(*args, **options):
    return benchmark.summarize(scored(*args, **options))


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
    assert list(found)[:2] == ["perfect", "two levels"]
    # Trapezoids over thresholds 0, 0.01, ..., 1. Threshold 0 covers the image whatever the map.
    assert found["perfect"].area == pytest.approx(np.mean((coverage + 1) / 2 + 99) / 100, rel=1e-5)
    assert found["perfect"].best == pytest.approx(1)
    assert found["constant"].area == pytest.approx(np.mean(coverage / 2) / 100, rel=1e-5)
    assert found["constant"].best == pytest.approx(coverage.mean(), rel=1e-5)
    levels = (coverage + half) / 2 + 49 * half + (half + 1) / 2 + 49
    assert found["two levels"].area == pytest.approx(np.mean(levels) / 100, rel=1e-5)
    np.testing.assert_allclose(
        found["two levels"].curve[[0, 50, 51]], [coverage.mean(), half.mean(), 1], 1e-5
    )
    assert not found["opposite"].curve[1:].any()
    assert {s.reading for s in found.values()} == {""}


def signed(sign_fn):
    return lambda v, x, t, k: mask_of(x)[..., None] * sign_fn(x)


def test_a_signed_map_is_credited_with_its_better_reading_over_all_images(source):
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
    perfect = found["positive"].area
    assert found["positive"].reading == ""  # both are the same map
    assert (found["negative"].reading, found["negative"].area) == ("absolute value", pytest.approx(perfect))
    assert found["mostly noise"].reading == "positive part"
    assert found["mostly noise"].area == pytest.approx(perfect)
    assert (found["mixed"].reading, found["mixed"].area) == ("absolute value", pytest.approx(perfect))


def test_the_reading_is_chosen_once_and_not_for_every_image(source):
    """Where the mask is large its positive part is right, elsewhere its absolute value."""

    def either(variables, images, targets, keys):
        mask, is_large = mask_of(images), mask_of(images).sum((1, 2))[:, None, None] > 4
        return jnp.where(is_large, mask - 2 * (1 - mask), -mask)[..., None]

    found = summary({"either": either}, source)["either"]
    maps = either(None, jnp.asarray(source.images), None, None)
    readings = [attribution.positive_heatmaps(maps), attribution.absolute_heatmaps(maps)]
    areas = np.array([iou_area(curves(reading, source)) for reading in readings])
    assert found.area == pytest.approx(areas.mean(1).max(), rel=1e-5)
    assert found.area < areas.max(0).mean() - 0.1


def ramp(variables, images, targets, keys):
    return images[..., 1:]


def test_means_and_standard_errors_are_those_of_a_loop(source):
    found = summary({"ramp": ramp}, source, batch_size=4)["ramp"]
    maps = attribution.positive_heatmaps(jnp.asarray(source.images[..., 1:]))
    curve = curves(maps, source)
    for values, mean, error in (
        (iou_area(curve), found.area, found.area_error),
        (best_iou(curve), found.best, found.best_error),
    ):
        values = np.asarray(values, np.float64)
        assert mean == pytest.approx(values.mean(), rel=1e-5)
        assert error == pytest.approx(values.std(ddof=1) / np.sqrt(NUM_IMAGES), rel=1e-3)
        assert error > 0
    np.testing.assert_allclose(found.curve, curve.mean(0), rtol=1e-5)
    alone = summary({"ramp": ramp}, subset(source, [3]))["ramp"]
    assert alone.area == pytest.approx(float(iou_area(curve)[3]), rel=1e-5)
    assert alone.area_error == alone.best_error == 0


def noise(variables, images, targets, keys):
    return jax.vmap(attribution.random_map)(keys, images[:, None])[:, 0]


def test_scores_do_not_depend_on_batches_or_devices(source):
    methods = {"noise": noise, "ramp": ramp}
    expected = scored(methods, source, batch_size=4)
    assert expected.num_images == NUM_IMAGES
    for batch_size, num_devices in ((1, 1), (8, 8)):
        found = scored(methods, source, batch_size=batch_size, num_devices=num_devices)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_a_random_map_follows_from_the_seed_and_the_image(source):
    seen = []

    def kept(*arguments):
        maps = noise(*arguments)
        jax.debug.callback(lambda m: seen.append(np.asarray(m)), maps)
        return maps

    for seed in (0, 1):
        init, update = benchmark.heatmap_scores(apply, {"noise": kept}, seed=seed)
        update = jax.jit(update)
        for chosen in ([0, 1, 2], [2, 5, 1]):
            jax.block_until_ready(update(init(), source[np.array(chosen)], 1.0))
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
    init, _ = benchmark.heatmap_scores(apply, {"ramp": ramp})
    with pytest.raises(ValueError, match="no image was scored"):
        benchmark.summarize(init())


def test_a_map_that_is_not_finite_is_named_and_counted(source):
    def broken(variables, images, targets, keys):
        shares = mask_of(images) / (mask_of(images).sum((1, 2)) > 4)[:, None, None]
        return jnp.where(jnp.isnan(shares), jnp.inf, shares)[..., None]

    num_small = int((source.masks.sum((1, 2)) <= 4).sum())
    assert 0 < num_small < NUM_IMAGES
    state = scored({"broken": broken, "ramp": ramp}, source)  # the last batch holds a padded image
    assert {name: int(n) for name, n in state.num_not_finite.items()} == {"broken": num_small, "ramp": 0}
    with pytest.raises(
        ValueError, match=f"heatmaps of 'broken' for {num_small} of 7 images; mend.*leave it out"
    ):
        benchmark.summarize(state)


def test_what_is_not_finite_in_padding_does_not_count(source):
    batch = dict(source[np.array([0, 1])], weights=np.array([1.0, 0.0], np.float32))
    nan = lambda v, x, t, k: mask_of(x).at[1].set(jnp.nan)  # noqa: E731
    init, update = benchmark.heatmap_scores(apply, {"nan": nan})
    assert benchmark.summarize(update(init(), batch, 1.0))["nan"].best == pytest.approx(1)


def test_the_range_of_a_heatmap_does_not_count(source):
    found = summary(
        {"unit": lambda v, x, t, k: mask_of(x), "loud": lambda v, x, t, k: 70 * mask_of(x) - 30}, source
    )
    assert found["loud"].area == pytest.approx(found["unit"].area, rel=1e-5)


@pytest.mark.parametrize("left_out", ["masks", "indices"])
def test_a_batch_without_masks_or_indices_is_named(left_out, source):
    init, update = benchmark.heatmap_scores(apply, {"ramp": ramp})
    batch = {name: array for name, array in source[np.array([0, 1])].items() if name != left_out}
    with pytest.raises(KeyError, match=f"needs '{left_out}', got .*ArraySource"):
        update(init(), batch, 1.0)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda v, x, t, k: mask_of(x)[:, 1:], r"shape \(2, 5, 5\): expected heatmaps \(2, 6, 5\)"),
        (lambda v, x, t, k: mask_of(x).sum((1, 2)), r"shape \(2,\)"),
        (lambda v, x, t, k: None, "NoneType"),
    ],
)
def test_maps_of_another_shape_name_their_method(method, message, source):
    init, update = benchmark.heatmap_scores(apply, {"mine": method})
    with pytest.raises(ValueError, match=r"methods\['mine'\] returned " + message):
        update(init(), source[np.array([0, 1])], 1.0)


def test_a_method_of_three_arguments_is_named_at_once():
    with pytest.raises(
        TypeError, match=r"methods\['mine'\] takes .*expected .*targets, keys\); a method that"
    ):
        benchmark.heatmap_scores(apply, {"mine": lambda variables, images, targets: images})


# ------------------------------------------------------------------------------- the usual methods


@pytest.mark.parametrize("activation", [jax.nn.gelu, lambda x: x])
def test_a_network_without_relu_is_scored_with_the_gradient(activation, flowers):
    kernel, _, dense = networks.plain_network()[1]

    def smooth(variables, images):
        kernel, dense = variables
        x = jax.lax.conv_general_dilated(images, kernel, (3, 2), "SAME", dimension_numbers=networks.NHWC)
        return activation(x).mean((1, 2)) @ dense

    table = layers(smooth, (kernel, dense), flowers.images)
    layout = layout_of(candidate_layers(table))
    weights = np.ones((sum(n for _, n in layout), 5))
    relevance = Relevance(weights, np.zeros(5), np.ones(5), np.asarray(10.0), layout, flowers.class_names)
    methods = benchmark.methods_for(smooth, table, relevance, on_uncovered="gradient")
    arguments = ((kernel, dense), jnp.asarray(flowers.images), jnp.arange(5), None)
    np.testing.assert_allclose(methods["guided backprop"](*arguments), methods["gradient"](*arguments))
    found = summary(methods, flowers, network=smooth, variables=(kernel, dense), batch_size=5)
    assert set(found) == set(methods)
    if "gelu" in table.names[1]:
        refusing = benchmark.methods_for(smooth, table, relevance)
        for name in (benchmark.OURS, "guided backprop"):
            with pytest.raises(ValueError, match='pass on_uncovered="gradient"'):
                refusing[name](*arguments)


def test_an_option_that_explain_lacks_is_refused_at_construction(network):
    counted, _, table, relevance, _ = network
    with pytest.raises(TypeError, match=r"no 'num_feature'.*did you mean 'num_features'"):
        benchmark.methods_for(counted, table, relevance, num_feature=2)
    with pytest.raises(ValueError, match="seed is 'noise'"):
        benchmark.methods_for(counted, table, relevance, seed="noise")


@pytest.fixture(scope="module")
def flowers():
    rng = np.random.default_rng(2)
    images = rng.uniform(size=(5, 13, 11, 3)).astype(np.float32)
    masks = (rng.uniform(size=(5, 13, 11)) > 0.7).astype(np.float32)
    return ArraySource(images, np.arange(5), masks, class_names=tuple("abcde"))


@pytest.fixture(scope="module")
def network(flowers):
    """(apply, variables, table, relevance) with relevance drawn at random, and a counter of traces."""
    plain, variables = networks.plain_network()
    traces = []

    def counted(variables, images):
        traces.append(1)
        return plain(variables, images)

    table = layers(counted, variables, flowers.images)
    layout = layout_of(candidate_layers(table))
    weights = np.random.default_rng(1).uniform(size=(sum(n for _, n in layout), 5))
    relevance = Relevance(weights, np.zeros(5), np.ones(5), np.asarray(10.0), layout, flowers.class_names)
    return counted, variables, table, relevance, traces


NAMES = (
    benchmark.OURS,
    "gradient",
    "guided backprop",
    "Grad-CAM (relu_1)",
    "upsampled activation (relu_1)",
    *benchmark.CONTROLS,
)


def test_the_usual_methods_are_what_their_names_say(network, flowers):
    counted, variables, table, relevance, _ = network
    options = {"num_features": 2, "combination": "mean"}
    methods = benchmark.methods_for(counted, table, relevance, **options)
    assert set(methods) == set(NAMES)

    def expected(v, x, t, keys):
        score = attribution.class_score(counted)
        return {
            benchmark.OURS: explain(counted, v, x, relevance, targets=t, **options).heatmaps,
            "gradient": attribution.gradient(score, v, x, t),
            "guided backprop": attribution.guided_backprop(score, v, x, t),
            "Grad-CAM (relu_1)": attribution.grad_cam(score, v, x, t, layer="relu_1"),
            "upsampled activation (relu_1)": attribution.upsampled_activation(score, v, x, t, layer="relu_1"),
            "Sobel edges": attribution.sobel_edges(x),
            "random map": jnp.stack([attribution.random_map(key, x[:1])[0] for key in keys]),
        }

    @jax.jit
    def run(*arguments):
        return {name: method(*arguments) for name, method in methods.items()}, expected(*arguments)

    keys = jax.random.split(jax.random.key(0), 5)
    found, maps = run(variables, jnp.asarray(flowers.images), jnp.array([4, 0, 2, 2, 1]), keys)
    for name in NAMES:
        np.testing.assert_allclose(found[name], maps[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert found[name].any()


def test_all_methods_run_in_one_program_for_all_batches(network, flowers):
    counted, variables, table, relevance, traces = network
    methods = benchmark.methods_for(counted, table, relevance)
    init, update = benchmark.heatmap_scores(counted, methods)
    batch_fn, num_steps = epoch_batches(flowers, 2)
    assert num_steps == 3
    fold(update, init(), batch_fn, num_steps=1, constants=variables)
    once = len(traces)
    found = benchmark.summarize(fold(update, init(), batch_fn, num_steps=3, constants=variables))
    assert len(traces) == once
    assert set(found) == set(NAMES)
    areas = [s.area for s in found.values()]
    assert areas == sorted(areas, reverse=True)
    assert 0 < min(areas) < max(areas) < 1
    for name in (benchmark.OURS, "Grad-CAM (relu_1)", "upsampled activation (relu_1)", *benchmark.CONTROLS):
        assert found[name].reading == "", name
    assert found["gradient"].reading in ("positive part", "absolute value")
