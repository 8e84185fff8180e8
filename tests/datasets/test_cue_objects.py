"""Cue objects: areas and halves by closed form, one cue changed and nothing else, no leak between cues."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.datasets import from_tfds, in_memory
from vexplain.datasets.cue_objects import (
    COLORS,
    CUES,
    SHAPES,
    SPLITS,
    TEXTURES,
    CueSource,
    draw_factors,
    render,
    render_factors,
)
from vexplain.datasets.cue_objects.renderer import is_dark, is_inside
from vexplain.datasets.cue_objects.source import _render_batch
from vexplain.datasets.cue_objects_rendered import CueObjectsConfig, CueObjectsRendered

SMALL = {"num_per_class": 11, "size": 24, "samples": 2}
FIRST = np.arange(64)  # always as many, so that little is compiled

is_dark_jitted = jax.jit(is_dark)


@pytest.fixture(scope="module")
def grid():
    """Points of the canonical plane, 0.01 apart."""
    line = (np.arange(-200, 200) + 0.5) / 100
    return jnp.meshgrid(jnp.asarray(line), jnp.asarray(line))


@pytest.mark.parametrize("shape", range(len(SHAPES)), ids=SHAPES)
def test_every_shape_has_area_pi_and_fits_into_the_image(shape, grid):
    inside = np.asarray(is_inside(*grid, shape))
    assert inside.mean() * 16 == pytest.approx(np.pi, rel=0.01)  # sides along the grid
    reach = np.hypot(*grid)[inside].max()
    assert reach * 17.5 / 64 + 4 / 64 < 0.5  # the largest object, as far to one side as it goes
    if shape < 5:  # all but the arrow are symmetrical to their center
        assert abs(np.stack(grid)[:, inside].mean(1)).max() < 0.01


def test_shapes_differ_by_much(grid):
    masks = [np.asarray(is_inside(*grid, shape)) for shape in range(6)]
    overlaps = [(a & b).sum() / (a | b).sum() for a, b in itertools.combinations(masks, 2)]
    assert max(overlaps) < 0.9


@pytest.mark.parametrize("texture", range(len(TEXTURES)), ids=TEXTURES)
def test_every_texture_is_dark_over_half_of_the_plane(texture, grid):
    factors = draw_factors(jax.random.key(3), 0)._replace(
        texture=jnp.int32(texture), frequency=jnp.float32(1.5), angle=jnp.float32(0.3)
    )
    x, y = (25 * axis for axis in grid)  # many periods
    assert np.asarray(is_dark_jitted(x, y, factors)).mean() == pytest.approx(0.5, abs=0.02)


def test_stripes_and_dots_lie_where_the_formula_says():
    factors = draw_factors(jax.random.key(0), 0)._replace(
        frequency=jnp.float32(2), angle=jnp.float32(0), phase=jnp.float32(0)
    )
    x, y = jnp.array([0.1, 0.3, 0.25, 0.25]), jnp.array([0.0, 0.0, 0.25, 0.0])
    kinds = [is_dark_jitted(x, y, factors._replace(texture=jnp.int32(n))).tolist() for n in (0, 2)]
    assert kinds[0] == [True, False, False, False]  # period 1/2, the first half is dark
    assert kinds[1] == [False, False, True, False]  # the middle of a period, and its sides


def test_colors_are_hues_and_their_dark_shades():
    factors = draw_factors(jax.random.key(1), 0, agreement=(1.0, 1.0, 1.0))
    plain = factors._replace(hue_shift=0.0, saturation=1.0, value=1.0)
    primary = {0: (1, 0, 0), 1: (1, 1, 0), 2: (0, 1, 0), 3: (0, 1, 1), 4: (0, 0, 1), 5: (1, 0, 1)}
    for color, expected in primary.items():
        image, mask = render_factors(plain._replace(color=jnp.int32(color)), size=24, samples=1)
        found = np.unique(np.asarray(image[mask == 1]).round(4), axis=0)
        np.testing.assert_allclose(found, np.array([0.3, 1.0])[:, None] * expected, atol=1e-4)
        np.testing.assert_allclose(image[mask == 0], factors.shade, atol=1e-6)
    assert len(COLORS) == len(primary)


# --- cues and classes ---------------------------------------------------------------------------------------


def cues_of(count=1000, **settings):
    source = CueSource(**{"num_per_class": count, **settings})
    indices = np.arange(len(source))
    factors = source.factors(indices)
    return np.stack([np.asarray(getattr(factors, cue)) for cue in CUES]), indices % 6


@pytest.mark.parametrize("cue", CUES)
def test_a_cue_is_the_class_and_the_others_are_independent(cue):
    values, labels = cues_of(**{cue: 1.0})
    for name, found in zip(CUES, values, strict=True):
        if name == cue:
            np.testing.assert_array_equal(found, labels)
            continue
        table = np.histogram2d(labels, found, bins=6)[0] / len(labels)
        np.testing.assert_allclose(table, 1 / 36, atol=5 * np.sqrt(1 / 36 / len(labels)))
    first, second = (found for name, found in zip(CUES, values, strict=True) if name != cue)
    table = np.histogram2d(first, second, bins=6)[0] / len(labels)
    np.testing.assert_allclose(table, 1 / 36, atol=5 * np.sqrt(1 / 36 / len(labels)))


def test_cues_agree_as_often_as_asked():
    values, labels = cues_of(shape=1.0, texture=0.7, color=0.0)
    agree = (values == labels).mean(1)
    np.testing.assert_allclose(agree, (1.0, 0.7, 0.0), atol=0.03)
    wrong = (values[1] - labels)[values[1] != labels] % 6
    np.testing.assert_allclose(np.bincount(wrong)[1:] / len(wrong), 0.2, atol=0.05)


def test_the_cues_of_a_conflict_are_three_classes():
    values, labels = cues_of(texture=1.0, split="conflict")
    np.testing.assert_array_equal(values[1], labels)
    assert all((a != b).all() for a, b in itertools.combinations(values, 2))
    combinations, counts = np.unique(values.T, axis=0, return_counts=True)
    assert len(combinations) == 6 * 5 * 4
    assert counts.min() > 0.5 * counts.mean()
    both = cues_of(shape=0.5, texture=0.5, split="conflict")
    np.testing.assert_array_equal(both[0][0], both[1])  # of several the first


def test_poses_depend_on_split_and_index_alone():
    poses = {}
    for split in SPLITS:
        sets = [CueSource(shape=1.0, split=split), CueSource(shape=0.9, color=0.5, split=split)]
        sets += [CueSource(color=1.0, clutter=2)] if split == "train" else []
        found = [source.factors(np.arange(6000)) for source in sets]
        for name in ("scale", "center_x", "phase"):
            first, *others = (np.asarray(getattr(factors, name)) for factors in found)
            for other in others:
                np.testing.assert_array_equal(first, other)
        poses[split] = np.asarray(found[0].scale)
    every = np.concatenate(list(poses.values()))
    assert len(np.unique(every)) > 0.99 * len(every)


# --- interventions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "surroundings", [{}, {"background": "textured", "clutter": 3}], ids=["plain", "full"]
)
def test_an_intervention_changes_one_cue_and_nothing_else(surroundings):
    source = CueSource(shape=1.0, **SMALL, **surroundings)
    before, factors = source[FIRST], source.factors(FIRST)
    changed = source.interventions(FIRST, step=2)
    masks, images = np.asarray(before["masks"]), np.asarray(before["images"])
    for n, cue in enumerate(CUES):
        new = factors._replace(**{cue: (getattr(factors, cue) + 2) % 6})
        expected, new_masks = _render_batch(new, size=24, samples=2)
        np.testing.assert_allclose(changed[:, n], expected, atol=1.01 / 255)
        outside = (masks == 0) & (np.asarray(new_masks) == 0)
        np.testing.assert_array_equal(changed[:, n][outside], images[outside])
        if cue == "shape":
            inside = (masks == 1) & (np.asarray(new_masks) == 1)
            assert inside.sum((1, 2)).min() > 10
            np.testing.assert_array_equal(changed[:, n][inside], images[inside])
        else:
            np.testing.assert_array_equal(new_masks, masks)
        assert (np.abs(changed[:, n] - images).max((1, 2, 3)) > 0.1).all()


def test_color_keeps_the_pattern_and_texture_keeps_the_hue():
    source = CueSource(color=1.0, **SMALL)
    batch, changed = source[FIRST], source.interventions(FIRST)
    images, inside = np.asarray(batch["images"]), np.asarray(batch["masks"]) == 1
    brightness = [x.max(-1)[inside] for x in (images, changed[:, 2])]
    np.testing.assert_allclose(*brightness, atol=0.01)
    hue = [(x / x.max(-1, keepdims=True))[inside] for x in (images, changed[:, 1])]
    np.testing.assert_allclose(*hue, atol=0.03)  # 8 bits


# --- sets ---------------------------------------------------------------------------------------------------


def test_a_source_is_repeatable_and_fits_into_memory():
    source = CueSource(texture=1.0, color=0.5, **SMALL)
    batch, every = source[np.resize([5, 0, 5], 64)], source[FIRST]
    assert batch["labels"][:3].tolist() == batch["textures"][:3].tolist() == [5, 0, 5]
    np.testing.assert_array_equal(batch["images"][0], batch["images"][2])
    np.testing.assert_array_equal(batch["images"][0], every["images"][5])
    assert np.asarray(every["masks"]).mean() == pytest.approx(np.pi * (15.25 / 64) ** 2, rel=0.1)
    assert source.class_names[0] == "stripes, red"
    held = in_memory(source)[FIRST]
    np.testing.assert_allclose(held["images"], every["images"], atol=1e-6)
    np.testing.assert_array_equal(held["colors"], every["colors"])


def test_one_key_gives_one_image(key):
    image, mask, factors = render(key, 4, agreement=(1 / 6, 1.0, 1 / 6), size=24, samples=1)
    assert int(factors.texture) == 4
    again = render_factors(factors, size=24, samples=1)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(mask, again[1])
    assert 0 <= float(image.min()) < float(image.max()) <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "shape, texture and color are None: give the probability"),
        ({"shape": 1.5}, "shape is 1.5: expected a probability"),
        ({"color": float("nan")}, "color is nan"),
        ({"shape": 1.0, "split": "all"}, "split is 'all'"),
        ({"shape": 1.0, "background": "sky"}, "background is 'sky'"),
        ({"shape": 1.0, "clutter": -1}, "clutter is -1"),
        ({"shape": 1.0, "size": 0}, "size is 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CueSource(**settings)


def test_wrong_arguments_are_named(key):
    with pytest.raises(ValueError, match="conflict is 'size'"):
        draw_factors(key, 0, conflict="size")
    with pytest.raises(ValueError, match="step is 6: expected one of"):
        CueSource(shape=1.0, **SMALL).interventions(np.arange(2), step=6)
    with pytest.raises(IndexError, match="there are 66 images"):
        CueSource(shape=1.0, **SMALL).factors(np.array([66]))


def test_files_hold_what_was_rendered(tmp_path):
    counts = {"num_train": 11, "num_validation": 1, "num_test": 1, "num_conflict": 2}
    config = CueObjectsConfig(shape=1.0, texture=0.5, size=24, samples=2, **counts)
    builder = CueObjectsRendered(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    splits = builder.as_data_source()
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 66,
        "validation": 6,
        "test": 6,
        "conflict": 12,
    }
    for name in ("train", "conflict"):
        batch = config.source(name)[np.resize(np.arange(len(splits[name])), 64)]
        for place, record in enumerate(list(splits[name])[:64]):
            np.testing.assert_array_equal(record["image"], np.round(batch["images"][place] * 255))
            np.testing.assert_array_equal(record["mask"][..., 0], np.round(batch["masks"][place] * 255))
            assert [record[cue] for cue in CUES] == [batch[f"{cue}s"][place] for cue in CUES]
            assert record["label"] == batch["labels"][place]
    read = from_tfds(splits["train"], mask="mask")
    assert read[np.arange(3)]["images"].shape == (3, 24, 24, 3)
    assert builder.info.features["label"].names[1] == "triangle, checker"


def test_configs_are_named_by_their_settings():
    assert sorted(CueObjectsRendered.builder_configs) == ["color_1.0", "shape_1.0", "texture_1.0"]
    both = CueObjectsConfig(shape=1.0, texture=1.0, background="textured", clutter=4)
    assert both.name == "shape_1.0-texture_1.0-background_textured-clutter_4"
    with pytest.raises(ValueError, match="num_test is 0"):
        CueObjectsConfig(shape=1.0, num_test=0)
    with pytest.raises(ValueError, match="texture is 2"):
        CueObjectsConfig(texture=2.0)
