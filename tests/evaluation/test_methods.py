"""The methods are what their names say, whatever is traced; and what they draw follows from the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transforms import networks
from vexplain import attribution, evaluation
from vexplain.datasets import ArraySource
from vexplain.relevance import Relevance, candidate_layers, explain, layout_of, relevant_evidence
from vexplain.streaming import fold_epoch
from vexplain.transforms import layers

NUM_IMAGES = 5


@pytest.fixture(scope="module")
def flowers():
    rng = np.random.default_rng(2)
    images = rng.uniform(size=(NUM_IMAGES, 13, 11, 3)).astype(np.float32)
    masks = (rng.uniform(size=(NUM_IMAGES, 13, 11)) > 0.7).astype(np.float32)
    return ArraySource(images, np.arange(NUM_IMAGES), masks, class_names=tuple("abcde"))


def made_relevance(table):
    layout = layout_of(candidate_layers(table))
    weights = np.random.default_rng(1).uniform(size=(sum(n for _, n in layout), 5))
    return Relevance(weights, np.zeros(5), np.ones(5), np.asarray(10.0), layout, tuple("abcde"))


@pytest.fixture(scope="module")
def network(flowers):
    """(apply, variables, table, relevance) with relevance drawn at random, and a counter of traces."""
    plain, variables = networks.plain_network()
    traces = []

    def counted(variables, images):
        traces.append(1)
        return plain(variables, images)

    table = layers(counted, variables, flowers.images)
    return counted, variables, table, made_relevance(table), traces


KNOBS = {"num_samples": 3, "num_steps": 4, "window": (5, 4), "stride": 3}
OPTIONS = {"num_features": 2, "combination": "mean"}
TARGETS = jnp.array([4, 0, 2, 2, 1])


def expected_maps(apply, v, x, t, keys, relevance):
    score, cam = attribution.class_score(apply), {"layer": "relu_1"}
    one_by_one = [
        attribution.smooth_grad(score, v, x[n : n + 1], t[n : n + 1], key=keys[n : n + 1], num_samples=3)
        for n in range(NUM_IMAGES)
    ]
    return {
        evaluation.OURS: explain(apply, v, x, relevance, targets=t, **OPTIONS).heatmaps,
        evaluation.OWN: relevant_evidence(apply, v, x, relevance, targets=t).heatmaps,
        "gradient": attribution.gradient(score, v, x, t),
        "input × gradient": attribution.input_x_gradient(score, v, x, t),
        "SmoothGrad": jnp.concatenate(one_by_one),
        "integrated gradients": attribution.integrated_gradients(score, v, x, t, num_steps=4),
        "deconvnet": attribution.deconvnet(score, v, x, t),
        "guided backprop": attribution.guided_backprop(score, v, x, t),
        "Grad-CAM": attribution.grad_cam(score, v, x, t, **cam),
        "Grad-CAM++": attribution.grad_cam_plus_plus(score, v, x, t, **cam),
        "LayerCAM": attribution.layer_cam(score, v, x, t, **cam),
        "upsampled activation": attribution.upsampled_activation(score, v, x, t, **cam),
        "guided Grad-CAM": attribution.guided_grad_cam(score, v, x, t, **cam),
        "guided Grad-CAM++": attribution.guided_grad_cam_plus_plus(score, v, x, t, **cam),
        "occlusion": attribution.occlusion(score, v, x, t, window=(5, 4), stride=3),
        "random map": jnp.stack([attribution.random_map(key, x[:1])[0] for key in keys]),
        "Sobel edges": attribution.sobel_edges(x),
        "Gaussian at the center": attribution.center_gaussian(x),
        "object segmentation": attribution.object_segmentation(x),
    }


def test_the_methods_are_what_their_names_say_with_a_relevance_that_is_traced(network, flowers):
    counted, variables, table, relevance, _ = network

    @jax.jit
    def run(relevance, *arguments):
        assert isinstance(relevance.weights, jax.core.Tracer)
        methods = evaluation.methods_for(counted, table, relevance, **KNOBS, **OPTIONS)
        found = {name: method(*arguments) for name, method in methods.items()}
        return found, expected_maps(counted, *arguments, relevance)

    keys = jax.random.split(jax.random.key(0), NUM_IMAGES)
    found, maps = run(relevance, variables, jnp.asarray(flowers.images), TARGETS, keys)
    assert set(found) == set(maps) == set(evaluation.methods_for(counted, table, relevance))
    assert set(evaluation.CONTROLS) < set(found)
    for name in found:
        np.testing.assert_allclose(found[name], maps[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.asarray(found[name]).any(), name


def test_all_batches_are_scored_by_one_program(network, flowers):
    counted, variables, table, relevance, traces = network
    names = (evaluation.OURS, "SmoothGrad", "Grad-CAM", "random map")
    methods = evaluation.methods_for(counted, table, relevance, names=names, num_samples=2)
    assert tuple(methods) == names
    init, update = evaluation.heatmap_scores(counted, methods, num_images=NUM_IMAGES)
    state = fold_epoch(update, init(), flowers, batch_size=2, constants=variables)
    once = len(traces)
    fold_epoch(update, init(), flowers, batch_size=2, constants=variables)
    assert len(traces) == once
    found = evaluation.summarize(state)
    assert set(found) == {*names, evaluation.CEILING}
    areas = [score.mean("IoU area") for score in found.values()]
    assert areas == sorted(areas, reverse=True)
    assert 0 < min(areas) < max(areas) < 1
    for name in (evaluation.OURS, "Grad-CAM", "random map", evaluation.CEILING):
        assert found[name].reading == "", name
    assert found["SmoothGrad"].reading in evaluation.READINGS


@pytest.mark.parametrize("activation", [jax.nn.gelu, lambda x: x])
def test_a_network_without_relu_is_explained_with_the_gradient(activation, flowers):
    kernel, _, dense = networks.plain_network()[1]

    def smooth(variables, images):
        kernel, dense = variables
        x = jax.lax.conv_general_dilated(images, kernel, (3, 2), "SAME", dimension_numbers=networks.NHWC)
        return activation(x).mean((1, 2)) @ dense

    table = layers(smooth, (kernel, dense), flowers.images)
    relevance = made_relevance(table)
    methods = evaluation.methods_for(smooth, table, relevance, on_uncovered="gradient")
    arguments = ((kernel, dense), jnp.asarray(flowers.images), TARGETS, None)
    gradient = methods["gradient"](*arguments)
    for name in ("guided backprop", "deconvnet"):
        np.testing.assert_allclose(methods[name](*arguments), gradient, rtol=1e-5, atol=1e-7)
    if "gelu" in table.names[1]:
        refusing = evaluation.methods_for(smooth, table, relevance)
        for name in (evaluation.OURS, "guided backprop", "deconvnet", "guided Grad-CAM++"):
            with pytest.raises(ValueError, match='pass on_uncovered="gradient"'):
                refusing[name](*arguments)


def test_occlusion_takes_an_eighth_of_the_image_and_moves_by_half_of_it(network):
    counted, variables, table, relevance, _ = network
    names = ["occlusion"]
    plain = evaluation.methods_for(counted, table, relevance, names=names)
    told = evaluation.methods_for(counted, table, relevance, names=names, window=(4, 2), stride=(2, 1))
    images, targets = jnp.asarray(np.random.default_rng(0).random((1, 33, 17, 3)), jnp.float32), TARGETS[:1]
    maps = [m["occlusion"](variables, images, targets, None) for m in (plain, told)]
    np.testing.assert_array_equal(*maps)
    assert maps[0].any()


def test_in_hindsight_every_layer_with_positions_has_its_maps(network, flowers):
    apply, variables = networks.linen_network()
    table = layers(apply, variables, flowers.images)
    found = evaluation.hindsight_methods(apply, table)
    chosen = [row.name for row in table if row.kind in ("relu", "pool") and None not in row.spatial_axes]
    assert len(chosen) == 4
    cams = ("Grad-CAM", "Grad-CAM++", "LayerCAM", "upsampled activation")
    assert list(found) == [f"{name} @ {layer}" for name in cams for layer in chosen]

    counted, variables, table, relevance, _ = network
    found = evaluation.hindsight_methods(counted, table)
    assert list(found) == [f"{name} @ relu_1" for name in cams]
    arguments = (variables, jnp.asarray(flowers.images), TARGETS, None)
    customary = evaluation.methods_for(counted, table, relevance)["LayerCAM"](*arguments)
    np.testing.assert_array_equal(found["LayerCAM @ relu_1"](*arguments), customary)
    with pytest.raises(ValueError, match="no activation function or pooling has spatial axes"):
        evaluation.hindsight_methods(counted, table.select("dense"))


def test_mistakes_are_named_at_construction(network):
    counted, _, table, relevance, _ = network
    with pytest.raises(TypeError, match=r"no 'num_feature'.*did you mean 'num_features'"):
        evaluation.methods_for(counted, table, relevance, num_feature=2)
    with pytest.raises(ValueError, match="seed is 'noise'"):
        evaluation.methods_for(counted, table, relevance, seed="noise")
    with pytest.raises(ValueError, match="no method 'Grad-Cam'; did you mean 'Grad-CAM'"):
        evaluation.methods_for(counted, table, relevance, names=["Grad-Cam"])
