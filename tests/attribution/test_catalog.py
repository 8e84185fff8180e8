"""Every method of the catalog: plain, traced, mapped, split over devices, compiled once, checked."""

import dataclasses
import functools
import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vexplain as vx
from tests.transforms import networks
from vexplain.catalog import as_methods, own_options, title_of
from vexplain.relevance import Relevance, candidate_layers, layout_of
from vexplain.streaming.devices import data_mesh

SHAPE, CLASSES = (13, 11, 3), 5
FEW = {
    "num_samples": 3,
    "num_steps": 3,
    "window": (5, 4),
    "stride": (4, 3),
    "num_features": 2,
    "num_segments": (3, 6),
    "features": (2, 3),
    "num_masks": 12,
    "num_permutations": 2,
    "cells": 3,
    "is_softmaxed": True,  # masked images of noise lower most scores: all else would be cut at 0
}
SEES_NO_TARGET = ("upsampled_activation", "eigen_cam", "attention_rollout", *vx.METHODS.of_kind("control"))
CALLED_ON_DEVICES = ("gradient", "smooth_grad", "relevant_features", "attention_rollout", "random_map")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
GENERATOR = np.random.default_rng(0)


def uniform(*shape):
    return GENERATOR.uniform(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return networks.plain_network()


@pytest.fixture(scope="module")
def methods(network):
    """Every method of the catalog with options that make it cheap."""
    return as_methods(list(vx.METHODS), relevance=made_relevance(*network), **FEW)


def network_of(name, network):
    """One that the method is for."""
    return networks.attention_network() if "attention" in vx.METHODS[name].needs else network


def made_relevance(apply, variables):
    layout = layout_of(candidate_layers(vx.layers(apply, variables, jnp.zeros((1, *SHAPE)))))
    weights = np.random.default_rng(1).random((sum(n for _, n in layout), CLASSES))
    weights[weights < 0.4] = 0
    return Relevance(weights, np.zeros(CLASSES), np.zeros(CLASSES), 1.0, layout, tuple("abcde"))


def keys_of(name, seed=7):
    return {"key": jax.random.key(seed)} if "key" in vx.METHODS[name].needs else {}


@pytest.mark.parametrize("name", vx.METHODS)
def test_every_method_alike_plain_traced_and_mapped(name, network, methods):
    (apply, variables), method = network_of(name, network), methods[name]
    images, targets = uniform(3, *SHAPE), jnp.array([4, 0, 2])
    plain = method(apply, variables, images, targets, **keys_of(name))
    signed = vx.METHODS[name].sign == "signed"
    assert plain.shape in ([images.shape, (*images.shape[:3], 1)] if signed else [images.shape[:3]])
    assert jnp.isfinite(plain).all()
    assert jnp.ptp(plain) > 0

    @jax.jit
    def traced(variables, images, targets):
        return method(apply, variables, images, targets, **keys_of(name))

    np.testing.assert_allclose(plain, traced(variables, images, targets), **CLOSE)
    if name not in SEES_NO_TARGET:
        assert not np.allclose(plain, traced(variables, images, targets[::-1]))
    drawn = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(7)))(jnp.arange(3))
    each = jax.vmap(
        lambda x, t, k: method(
            apply, variables, x[None], t[None], **({"key": k[None]} if keys_of(name) else {})
        )[0]
    )
    np.testing.assert_allclose(jax.jit(each)(images, targets, drawn), plain, **CLOSE)


@pytest.mark.parametrize("name", vx.METHODS)
def test_every_method_has_a_derivative(name, network, methods):
    if name in ("relevant_features", "object_segmentation"):
        pytest.skip("a choice of features, and a threshold, have none")
    (apply, variables), method = network_of(name, network), methods[name]
    images = uniform(1, *SHAPE)
    slope = jax.grad(lambda x: (method(apply, variables, x, jnp.array([1]), **keys_of(name)) ** 2).sum())
    assert jax.eval_shape(slope, images).shape == images.shape


@pytest.mark.parametrize("name", vx.METHODS)
def test_every_method_is_compiled_once(name, network, methods, compilations):
    (apply, variables), method = network_of(name, network), methods[name]
    for _ in range(2):
        first = method(apply, variables, uniform(3, *SHAPE), [4, 0, 2], **keys_of(name))
    images, targets = uniform(7, *SHAPE), [0, 1, 2, 3, 4, 0, 1]
    with compilations() as found:
        again = method(apply, variables, images[:3], targets[:3], **keys_of(name))
        last = method(apply, variables, images[:2], targets[:2], **keys_of(name))
        more = method(apply, variables, images, targets, **keys_of(name))
        heavier = jax.tree.map(lambda leaf: 2 * np.asarray(leaf), variables)
        method(apply, heavier, images[:3], targets[:3], **keys_of(name, seed=8))
    assert not found, f"compiled again: {found}"
    assert first.shape == again.shape
    np.testing.assert_allclose(last, again[:2], **CLOSE)
    np.testing.assert_allclose(more[:3], again, **CLOSE)


@pytest.mark.parametrize("name", vx.METHODS)
def test_every_method_on_eight_devices_without_a_collective(name, network, methods):
    (apply, variables), method = network_of(name, network), methods[name]
    images, targets = uniform(8, *SHAPE), jnp.arange(8) % CLASSES
    mesh = data_mesh()
    split, whole = jax.NamedSharding(mesh, jax.P("data")), jax.NamedSharding(mesh, jax.P())
    on_mesh = (
        jax.device_put(variables, whole),
        jax.device_put(images, split),
        jax.device_put(targets, split),
    )
    keys = jax.device_put(jax.random.split(jax.random.key(3), 8), split) if keys_of(name) else None
    given = {} if keys is None else {"key": jax.device_get(keys)}
    expected = method(apply, variables, images, targets, **given)
    traced = jax.jit(lambda v, x, t, k: method(apply, v, x, t, key=k), keep_unused=True)
    compiled = traced.lower(*on_mesh, keys).compile()
    assert not [word for word in ("all-gather", "all-reduce", "all-to-all") if word in compiled.as_text()]
    results = [compiled(*on_mesh, keys)]
    if name in CALLED_ON_DEVICES:
        results.append(method(apply, *on_mesh, key=keys))
    for found in results:
        assert len(found.sharding.device_set) == 8
        np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("option", ["num_samples", "num_steps", "window", "num_masks"])
def test_memory_is_flat_in_the_number_of_copies(option, network):
    apply, variables = network
    names = {"num_steps": "integrated_gradients", "window": "occlusion", "num_masks": "rise"}
    name = names.get(option, "smooth_grad")

    def scratch(**options):
        maps = jax.jit(functools.partial(vx.attribute, name, apply, **keys_of(name), **options))
        given = (variables, jnp.zeros((4, *SHAPE)), jnp.array([0, 1, 2, 3]))
        return maps.lower(*given).compile().memory_analysis().temp_size_in_bytes

    few, many = ({"window": 10}, {"window": 2}) if option == "window" else ({option: 2}, {option: 200})
    assert scratch(**many) == pytest.approx(scratch(**few), rel=0.05)


# ----------------------------------------------------------------------------- networks without a hash


@dataclasses.dataclass
class Scaled:
    """A network that is an object, compares by value and has no hash."""

    scale: Any

    def __call__(self, variables, images):
        return images.mean((1, 2)) @ variables * self.scale


class Linear(eqx.Module):
    weights: jax.Array

    def __call__(self, variables, images):
        return images.mean((1, 2)) @ self.weights


@pytest.mark.parametrize("kind", ["dataclass", "equinox", "bound method", "partial"])
def test_a_network_without_a_hash_is_compiled_once_and_never_stale(kind, compilations):
    images, targets = uniform(2, 4, 5, 3), 1

    def made(scale):
        weights = scale * jnp.ones((3, 2))
        return {
            "dataclass": lambda: (Scaled(scale), jnp.ones((3, 2))),
            "equinox": lambda: (Linear(weights), None),
            "bound method": lambda: (Scaled(scale).__call__, jnp.ones((3, 2))),
            "partial": lambda: (functools.partial(Scaled.__call__, Scaled(scale)), jnp.ones((3, 2))),
        }[kind]()

    apply, variables = made(2.0)
    np.testing.assert_allclose(vx.gradient(apply, variables, images, targets), 2 / 20, rtol=1e-6)
    with compilations() as found:
        vx.gradient(apply, variables, 1 - images, targets)
    assert not found
    apply, variables = made(3.0)
    np.testing.assert_allclose(vx.gradient(apply, variables, images, targets), 3 / 20, rtol=1e-6)


def test_a_network_whose_attribute_is_set_anew_is_another_network():
    apply, images = Scaled(2.0), uniform(2, 4, 5, 3)
    before = vx.gradient(apply, jnp.ones((3, 2)), images, 0)
    for scale in map(float, range(5, 10)):  # a new object each, at the address of one that is gone
        apply.scale = scale
        found = vx.gradient(apply, jnp.ones((3, 2)), images, 0)
        np.testing.assert_allclose(found, scale / 2 * np.asarray(before), rtol=1e-6)


def test_other_arrays_among_the_options_compile_nothing(network, compilations):
    apply, variables = network
    images = uniform(2, *SHAPE)
    options = {"num_steps": 2, "targets": 1}
    vx.attribute("integrated_gradients", apply, variables, images, baseline=uniform(3), **options)
    vx.gradient(apply, variables, images, score=vx.against(np.array([0, 1])))
    with compilations() as found:
        vx.attribute("integrated_gradients", apply, variables, images, baseline=uniform(3), **options)
        vx.gradient(apply, variables, images, score=vx.against(np.array([2, 2])))
    assert not found


def test_a_network_that_mixes_its_images_is_never_filled_up():
    """A normalization over the batch: a batch of another size must go through a program of its own."""

    def apply(variables, images):
        x = images @ variables
        x = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
        return jax.nn.relu(x).mean((1, 2))

    images, variables = uniform(6, 4, 5, 3), jnp.asarray(uniform(3, 4))
    traced = jax.jit(lambda x: vx.gradient(apply, variables, x, 1))
    for count in (4, 3, 6, 2):
        found = vx.gradient(apply, variables, images[:count], 1)
        np.testing.assert_allclose(found, traced(images[:count]), **CLOSE)


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([3, 7, 0], r"targets go from 0 to 7: expected classes from 0 to 4"),
        (-1, r"targets go from -1 to -1: expected classes from 0 to 4"),
        (np.array([2]), r"targets has shape \(1,\): expected \(3,\), one class an image, or one integer"),
        (np.zeros((3, 1), int), r"targets has shape \(3, 1\).*pass targets\[:, 0\]"),
        (
            np.eye(5)[[0, 1, 2]],
            r"expected integers, the classes to explain; of one-hot rows pass targets.argm",
        ),
        (np.eye(5, dtype=int)[[0, 1, 2]], r"targets has shape \(3, 5\).*of one-hot rows pass targets.argmax"),
        ("cat", r"targets is 'cat': expected integers.*pass their places in class_names"),
        ([0.5, 1.0, 2.0], r"targets is \[0.5, 1.0, 2.0\]: expected integers"),
        ([True, False, True], r"expected integers"),
    ],
)
@pytest.mark.parametrize("name", ["gradient", "grad_cam", "relevant_features", "relevant_evidence"])
def test_targets_that_are_no_classes_are_refused(name, targets, message, network, methods):
    with pytest.raises(ValueError, match=message):
        methods[name](*network, uniform(3, *SHAPE), targets)


@pytest.mark.parametrize(
    "targets", [2, np.int64(2), [2, 2, 2], np.full(3, 2), np.full(3, 2, np.uint8), jnp.full(3, 2)]
)
def test_targets_of_every_plain_kind_mean_the_same(targets, network):
    images = jnp.linspace(0, 1, 3 * 13 * 11 * 3).reshape(3, *SHAPE)
    expected = vx.gradient(*network, images, jnp.array([2, 2, 2]))
    np.testing.assert_array_equal(vx.gradient(*network, images, targets), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, *SHAPE), np.uint8), "images has dtype uint8: expected floats in .*divide by 255"),
        (np.full((2, *SHAPE), 255.0), "images go from 255 to 255: expected .*divide 8-bit images by 255"),
        (jnp.full((2, *SHAPE), 255.0), "images go from 255 to 255: expected .*divide 8-bit images by 255"),
        (jnp.full((2, *SHAPE), -1.0), "images go from -1 to -1: .*undo the normalization"),
        (jnp.full((2, *SHAPE), jnp.nan), "images hold NaN"),
        (np.zeros(SHAPE), r"images has shape \(13, 11, 3\).*pass images\[None\]"),
        (np.zeros((0, *SHAPE), np.float32), "it holds no image to explain"),
        ((np.zeros((2, *SHAPE)), 1), "images is a tuple: expected one array"),
    ],
)
@pytest.mark.parametrize("name", ["gradient", "sobel_edges", "relevant_features"])
def test_images_of_another_kind_are_refused(name, images, message, network, methods):
    with pytest.raises(ValueError, match=message):
        methods[name](*network, images)


BROKEN = {
    "a dict": (lambda v, x: {"logits": x.mean((1, 2))}, r"a dict of \['logits'\]: .*outputs\['logits'\]"),
    "a tuple": (lambda v, x: (x.mean((1, 2)), x), r"a tuple of 2: .*vexplain.logit\(outputs\[0\], targets\)"),
    "a map": (lambda v, x: x, r"shape \(2, 13, 11, 3\): expected \(batch, classes\)"),
    "one logit": (
        lambda v, x: x.mean((1, 2, 3))[:, None],
        r"shape \(2, 1\), one output an image.*=vexplain.binary",
    ),
    "flat logits": (lambda v, x: x.mean((1, 2, 3)), r"shape \(2,\), one output an image.*vexplain.binary"),
}


@pytest.mark.parametrize("outputs", BROKEN)
@pytest.mark.parametrize("targets", [None, 1])
def test_outputs_that_are_no_class_scores_are_refused_with_the_score_to_pass(outputs, targets):
    apply, message = BROKEN[outputs]
    with pytest.raises(ValueError, match=f"apply returned {message}"):
        vx.gradient(apply, None, uniform(2, *SHAPE), targets)


def test_nan_in_the_outputs_is_refused_with_the_image(network):
    def apply(variables, images):
        outputs = images.mean((1, 2))
        return jnp.where(images[:, :1, 0, 0] > 0.5, jnp.nan, outputs)

    images = np.full((3, *SHAPE), 0.25, np.float32)
    images[1] = 0.75
    with pytest.raises(ValueError, match="apply returned NaN for 1 of 3 images, first for image 1"):
        vx.gradient(apply, None, images)
    with pytest.raises(ValueError, match="score is not finite for 3 of 3 images"):
        vx.gradient(lambda v, x: x.mean((1, 2)).at[:, 2].set(-jnp.inf), None, images[:1].repeat(3, 0), 2)


def test_a_method_that_draws_needs_a_key(network):
    for name in ("smooth_grad", "random_map"):
        with pytest.raises(ValueError, match=f"key is None: {name} draws at random; pass key="):
            vx.attribute(name, *network, uniform(2, *SHAPE))
    for key, message in (
        (3, r"key is 3: .*jax.random.key\(3\)"),
        (jax.random.split(jax.random.key(0), 3), "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            vx.attribute("random_map", *network, uniform(2, *SHAPE), key=key)
    typed, old = jax.random.key(4), jax.random.PRNGKey(4)
    found = [vx.attribute("random_map", *network, uniform(2, *SHAPE), key=key) for key in (typed, old)]
    np.testing.assert_array_equal(*found)


def test_the_two_maps_of_relevant_features_refuse_what_they_cannot_explain(network, methods):
    images = uniform(2, *SHAPE)
    for name in vx.METHODS.of_kind("relevant features"):
        with pytest.raises(ValueError, match=r"score is 'probability': .*leave score out"):
            methods[name](*network, images, score=vx.probability)
        with pytest.raises(TypeError):
            vx.attribute(name, *network, images, relevance=3)
        with pytest.raises(TypeError, match="relevance"):
            vx.attribute(name, *network, images)


# ---------------------------------------------------------------------------------------- the catalog


def test_every_method_has_the_one_signature():
    for name, method in vx.METHODS.items():
        parameters = inspect.signature(method.function).parameters
        assert list(parameters)[:4] == ["apply", "variables", "images", "targets"], name
        assert parameters["targets"].default is None
        assert parameters["score"].default is vx.logit
        assert parameters["key"].default is None
        own = [p for n, p in parameters.items() if n in method.options]
        assert all(p.kind is p.KEYWORD_ONLY for p in own)
        assert ("layer" in method.options) == ("layer" in method.needs)
        assert ("relevance" in method.options) == ("relevance" in method.needs)
        assert (
            getattr(vx.attribution if hasattr(vx.attribution, name) else vx.relevance, name)
            is method.function
        )


def test_no_public_method_is_missing_from_the_catalog():
    rooms = (vx.attribution, vx.relevance)
    public = {n for room in rooms for n, f in vars(room).items() if inspect.isfunction(f)}
    found = {
        name
        for name in public
        for room in rooms
        if hasattr(room, name)
        and list(inspect.signature(getattr(room, name)).parameters)[:4]
        == ["apply", "variables", "images", "targets"]
    }
    assert found - set(vx.METHODS) == {
        "explain",
        "find_evidence",
        "propagate",
    }  # which know more than the map


def test_the_catalog_is_a_table_and_names_what_is_near():
    text = str(vx.METHODS)
    assert all(name in text and method.title in text for name, method in vx.METHODS.items())
    with pytest.raises(KeyError, match=r"no method 'gradcam'.*did you mean 'grad_cam'"):
        vx.METHODS["gradcam"]
    with pytest.raises(ValueError, match="kind is 'cam': expected one of"):
        vx.METHODS.of_kind("cam")
    assert len({method.title for method in vx.METHODS.values()}) == len(vx.METHODS)


def test_attribute_takes_names_and_functions(network):
    images = uniform(2, *SHAPE)
    expected = vx.grad_cam(*network, images, 3, layer="relu_1", score=vx.margin)
    for method in ("grad_cam", vx.grad_cam, functools.partial(vx.grad_cam)):
        found = vx.attribute(method, *network, images, 3, layer="relu_1", score=vx.margin)
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(TypeError, match=r"gradient has no option 'layer'"):
        vx.attribute("gradient", *network, images, layer="relu_1")
    with pytest.raises(KeyError, match="no method 'saliency'"):
        vx.attribute("saliency", *network, images)


def test_layers_of_cams_by_name_from_the_table_or_customary(network):
    images = uniform(2, *SHAPE)
    table = vx.layers(*network, images)
    expected = vx.grad_cam(*network, images, 3, layer="relu_1")
    for layer in (table["relu_1"], vx.cam_layer(table), None):
        np.testing.assert_array_equal(vx.grad_cam(*network, images, 3, layer=layer), expected)


def test_options_go_to_the_methods_that_have_them():
    mine = lambda apply, variables, images, targets=None, *, score=None, key=None, depth=1: depth  # noqa: E731
    found = as_methods(["smooth_grad", "gradient", mine], num_samples=9, depth=4)
    assert list(found) == ["smooth_grad", "gradient", "<lambda>"]
    assert found["gradient"] is vx.gradient
    assert found["smooth_grad"].keywords == {"num_samples": 9}
    assert found["<lambda>"](*3 * [None]) == 4
    assert as_methods("gradient") == as_methods(vx.gradient) == {"gradient": vx.gradient}
    assert list(as_methods({"a": "gradient", "b": vx.gradient})) == ["a", "b"]
    assert set(as_methods(["relevant_features"], combination="mean")["relevant_features"].keywords) == {
        "combination"
    }
    assert tuple(as_methods()) == vx.METHODS.customary
    assert set(vx.METHODS) - set(as_methods()) > {"attention_rollout", "generic_attention", "rise"}
    assert "on_uncovered" in own_options(vx.relevant_features)
    for options, error, message in (
        ({"methods": [], "depth": 1}, ValueError, "methods is empty"),
        ({"methods": [vx.gradient, "gradient"]}, ValueError, "two are called 'gradient'"),
        (
            {"methods": None, "num_sample": 1},
            TypeError,
            "no method has 'num_sample'.*did you mean 'num_samples'",
        ),
    ):
        with pytest.raises(error, match=message):
            as_methods(**options)
    assert title_of("layer_cam @ relu_1") == "LayerCAM @ relu_1"
    assert title_of("mine, at its best") == "mine, at its best"


# ------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("score", [vx.logit, vx.probability, vx.margin, vx.against(0), vx.binary])
def test_a_traced_target_that_is_no_class_gives_nan_and_no_other_class(score):
    """Concrete ones are refused; a gather would take the nearest class, or count from the end."""
    outputs, targets = jnp.array([[0.5, -1.0]] * 4), jnp.array([1, 2, -1, 0])
    outputs = outputs[:, 0] if score is vx.binary else outputs
    gradients = jax.jit(jax.grad(lambda x, t: score(x, t).sum()))(outputs, targets)
    is_finite = np.isfinite(gradients).reshape(4, -1).all(1)
    assert is_finite.tolist() == [True, False, False, True]


def test_what_a_target_is_held_against_is_checked():
    given = (lambda v, x: x.mean((1, 2)) @ v, jnp.eye(3), jnp.full((2, 4, 4, 3), 0.5), 0)
    for other in (-1, np.array([0.5, 1.0])):
        with pytest.raises(ValueError, match=r"other is .*: expected a class, an integer from 0 on"):
            vx.against(other)
    with pytest.raises(ValueError, match=r"score is against\(9\): expected a class from 0 to 2"):
        vx.gradient(*given, score=vx.against(9))
    with pytest.raises(ValueError, match=r"other has shape \(3,\): expected one class, or one for each of"):
        vx.gradient(*given, score=vx.against([0, 1, 2]))


def test_scores_against_numpy():
    logits, targets = GENERATOR.normal(size=(4, 5)), np.array([0, 4, 2, 2])
    own = logits[np.arange(4), targets]
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    given = (jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(vx.logit(*given), own, rtol=1e-6)
    np.testing.assert_allclose(vx.probability(*given), softmax[np.arange(4), targets], rtol=1e-5)
    rest = [np.delete(row, t).mean() for row, t in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(vx.margin(*given), own - rest, rtol=1e-5)
    np.testing.assert_allclose(vx.against(1)(*given), own - logits[:, 1], rtol=1e-5)
    others = np.array([1, 0, 3, 4])
    np.testing.assert_allclose(vx.against(others)(*given), own - logits[np.arange(4), others], rtol=1e-5)
    assert vx.against(1) == vx.against(1)


@pytest.mark.parametrize("score", [vx.logit, vx.probability, vx.margin, vx.against(0)])
def test_the_score_says_what_is_explained(score, network):
    apply, variables = network
    images, targets = uniform(2, *SHAPE), jnp.array([4, 2])
    expected = jax.grad(lambda x: score(apply(variables, x), targets).sum())(jnp.asarray(images))
    np.testing.assert_allclose(vx.gradient(apply, variables, images, targets, score=score), expected, **CLOSE)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_network_of_one_logit_is_explained_by_binary(shape):
    apply = lambda v, x: (x.mean((1, 2)) @ v - 0.1).reshape(shape)  # noqa: E731
    weights, images = jnp.array([1.0, -1.0, 0.5]), uniform(3, 4, 5, 3)
    images[0], images[1] = 0.0, 0.9
    found = vx.gradient(apply, weights, images[:2], score=vx.binary)  # predicted: 0, 1
    np.testing.assert_allclose(found[0], jnp.broadcast_to(-weights / 20, (4, 5, 3)), rtol=1e-6)
    np.testing.assert_allclose(found[1], jnp.broadcast_to(weights / 20, (4, 5, 3)), rtol=1e-6)
    with pytest.raises(ValueError, match="targets go from 2 to 2: expected classes from 0 to 1"):
        vx.gradient(apply, weights, images, 2, score=vx.binary)
    with pytest.raises(ValueError, match="score=binary is for one output an image"):
        vx.gradient(lambda v, x: x.mean((1, 2)), None, images, score=vx.binary)


def test_own_scores_explain_heads_and_whole_outputs():
    def apply(variables, images):
        return {"map": images @ variables, "logits": images.mean((1, 2)) @ variables}

    images, weights = uniform(2, 4, 5, 3), jnp.asarray(uniform(3, 2))
    of_head = lambda outputs, targets: vx.logit(outputs["logits"], targets)  # noqa: E731
    expected = jnp.broadcast_to(weights[:, 1] / 20, images.shape)
    np.testing.assert_allclose(
        vx.gradient(apply, weights, images, [1, 1], score=of_head), expected, rtol=1e-5
    )
    of_map = lambda outputs, targets: (outputs["map"] * targets).sum((1, 2, 3))  # noqa: E731
    masks = uniform(2, 4, 5, 2)
    found = vx.gradient(apply, weights, images, masks, score=of_map)
    np.testing.assert_allclose(found, masks @ weights.T, rtol=1e-5)
    no_targets = lambda outputs, targets: outputs["map"].sum((1, 2, 3))  # noqa: E731
    found = vx.gradient(apply, weights, images, score=no_targets)
    np.testing.assert_allclose(found, jnp.broadcast_to(weights.sum(1), images.shape), rtol=1e-5)
    with pytest.raises(ValueError, match=r"score returned \(2, 2\): expected one number an image, \(2,\)"):
        vx.gradient(apply, weights, images, score=lambda outputs, targets: outputs["logits"])
    with pytest.raises(ValueError, match=r"targets has shape \(3,\): expected a leading axis of 2"):
        vx.gradient(apply, weights, images, np.zeros(3), score=of_map)


def test_a_network_is_traced_once_for_all_methods_of_its_batch():
    plain, variables = networks.nnx_network()
    images, traces = jax.random.uniform(jax.random.key(0), (4, 13, 11, 3)), []

    def apply(variables, images):
        traces.append(images.shape)
        return plain(variables, images)

    vx.layers(apply, variables, images)
    for method in (vx.gradient, vx.grad_cam, vx.guided_backprop):
        method(apply, variables, images)
        method(apply, variables, images, targets=1)
    assert traces == [images.shape]
