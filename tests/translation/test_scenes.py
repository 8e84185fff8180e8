"""Translation into scenes: what moves, what is kept of the scene, what is asked for and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import map_coordinates

from vexplain.datasets import context_holes
from vexplain.datasets.try_on import paired_test
from vexplain.translation.layered import (
    SCENE_WEIGHTS,
    LayeredSettings,
    LayeredTranslator,
    LayeredWeights,
    Layers,
    Scene,
    layered_training,
)
from vexplain.translation.layered.losses import LOSSES, Made, Truth
from vexplain.translation.layered.networks import Codes
from vexplain.translation.layered.scenes import Fitted, moved

SETTINGS = LayeredSettings(image_size=16, width=4, carriers=(), num_waves=1, has_scenes=True)
TRANSLATOR = LayeredTranslator(SETTINGS)


@pytest.fixture(scope="module")
def generator():
    return TRANSLATOR.init(jax.random.key(0)).generator


@pytest.fixture(scope="module")
def pairs():
    return paired_test(3, size=16)


@pytest.fixture(scope="module")
def scene(pairs):
    return Scene(pairs.contexts_b, np.asarray(context_holes(pairs.masks_b)))


def places_of(turn, shift):
    rows, columns = np.mgrid[:16, :16].astype(np.float32)
    return np.einsum("ihw,ji->hwj", np.stack([rows, columns]), turn) + shift


def test_a_texture_moves_as_its_coordinates_do():
    """Against scipy: the new pixel has the color of the old pixel with the same coordinates."""
    texture = np.random.default_rng(0).random((16, 16, 3), np.float32)
    turn, shift = np.array([[0.2, 0.05], [-0.04, 0.15]]), np.array([-1.0, -1.5])
    new_turn, new_shift = np.array([[0.1, -0.1], [0.12, 0.2]]), np.array([-0.5, -2.0])
    before, after = (jnp.asarray(places_of(*known)[None]) for known in ((turn, shift), (new_turn, new_shift)))
    made = moved(texture[None], before, after)
    rows, columns = np.mgrid[:16, :16]
    wanted = new_turn @ np.stack([rows.ravel(), columns.ravel()]) + new_shift[:, None]
    positions = np.linalg.solve(turn, wanted - shift[:, None])
    for channel in range(3):
        expected = map_coordinates(texture[..., channel], positions, order=1, mode="nearest")
        np.testing.assert_allclose(made[0, ..., channel].ravel(), expected, atol=2e-4)


def test_a_scene_is_kept_beside_its_hole_and_products_have_one_background(generator, pairs, scene):
    worn = TRANSLATOR.layers(
        generator, pairs.images_a, source="a", target="b", coverage=pairs.masks_a, scene=scene
    )
    seen = np.broadcast_to(scene.holes[..., None] == 0, worn.background.shape)
    np.testing.assert_allclose(np.asarray(worn.background)[seen], pairs.images_b[seen], atol=1e-6)
    beyond = scene._replace(images=np.where(seen, scene.images, 0.9))
    again = TRANSLATOR.layers(
        generator, pairs.images_a, source="a", target="b", coverage=pairs.masks_a, scene=beyond
    )
    np.testing.assert_allclose(again.image, worn.image, atol=1e-5)
    alone = TRANSLATOR.layers(generator, pairs.images_b, source="b", target="a", coverage=pairs.masks_b)
    assert np.ptp(alone.background, (0, 1, 2)).max() == 0
    assert np.ptp(alone.coverage, 0).max() < 1e-6  # all products are shown alike
    assert np.ptp(worn.coverage, 0).max() > 0.1


def test_what_is_missing_or_does_not_fit_is_named(generator, pairs, scene):
    def translate(direction="ab", **options):
        TRANSLATOR.translate(generator, pairs.images_a, direction=direction, **options)

    with pytest.raises(ValueError, match=r"scene is missing: expected a Scene for each image"):
        translate()
    with pytest.raises(ValueError, match=r"scene is given: expected None from b to a with has_scenes=True"):
        translate("ba", scene=scene)
    with pytest.raises(
        ValueError, match=r"scene\.images has shape \(2, 16, 16, 3\): expected \(3, 16, 16, 3\)"
    ):
        translate(scene=Scene(scene.images[:2], scene.holes[:2]))
    with pytest.raises(ValueError, match=r"scene\.holes has shape \(3, 8, 8\): expected \(3, 16, 16\)"):
        translate(scene=scene._replace(holes=scene.holes[:, :8, :8]))
    with pytest.raises(ValueError, match=r"overlap is 5\.0: expected 0 with has_scenes=True.*SCENE_W"):
        layered_training(TRANSLATOR, LayeredWeights(), optax.sgd(0.1))
    plain = LayeredTranslator(dataclasses.replace(SETTINGS, has_scenes=False))
    with pytest.raises(ValueError, match=r"weights\.fit is 1\.0: expected 0 with has_scenes=False"):
        layered_training(plain, dataclasses.replace(LayeredWeights(), fit=1.0), optax.sgd(0.1))


def test_a_step_learns_what_belongs_in_a_scene(pairs, scene):
    """With the loss of the fit alone: its value falls, and nothing else is trained."""
    only = dataclasses.replace(SCENE_WEIGHTS, **dict.fromkeys(LOSSES, 0.0))
    init, update = layered_training(TRANSLATOR, dataclasses.replace(only, fit=1.0), optax.adam(0.01))
    batch = {"a": pairs.images_a, "b": pairs.images_b, "scenes_b": scene.images, "holes_b": scene.holes}
    batch |= {"coverage_a": pairs.masks_a, "coverage_b": pairs.masks_b}
    state = init(TRANSLATOR.init(jax.random.key(0)))
    step, losses = jax.jit(update), []
    before = state.variables.generator
    for _ in range(8):
        state = step(state, batch)
        losses.append(float(state.losses["fit"]))
    assert losses[-1] < 0.7 * losses[0]
    changed = {
        name: any(
            not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (x, before[name])), strict=True)
        )
        for name, x in state.variables.generator.items()
    }
    assert changed == dict.fromkeys(changed, False) | dict.fromkeys(("fit_in", "display", "shapes"), True)


def test_the_fit_by_hand():
    random = np.random.default_rng(0)
    images, behind = (jnp.asarray(random.random((2, 5, 5, 3)), jnp.float32) for _ in range(2))
    shape, wanted = (jnp.asarray(random.random((2, 6)), jnp.float32) for _ in range(2))
    mask = jnp.zeros((2, 5, 5))
    codes = Codes(jnp.eye(2), wanted, (), jnp.zeros((2, 5, 5, 4)))
    layers = Layers(images, mask, images)
    made = Made(codes, layers, layers, images, codes, codes, layers, Fitted(shape, behind))
    truth = Truth(images, mask, lambda made: jnp.zeros(2))
    back = layers._replace(coverage=jnp.zeros((2, 5, 5)).at[0].set(0.7).at[1].set(0.3))
    made = made._replace(back=back)
    expected = np.square(shape - wanted).mean() + np.abs(images - behind).mean() + 10 * 0.3
    np.testing.assert_allclose(LOSSES["fit"](made, truth), expected, rtol=1e-5)
    slopes = jax.grad(lambda codes: LOSSES["fit"](made._replace(codes=codes), truth))(codes)
    assert float(jnp.abs(slopes.shape).max()) == 0  # the images say what belongs, not the fit
