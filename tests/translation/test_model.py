"""The translator: shapes, sharing, what a discriminator sees, and translation as a call."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.translation import NetworkSettings, Translator, num_parameters
from vexplain.translation.blocks import to_depth, to_space

SMALL = NetworkSettings(image_size=16, width=4, latent_size=6)
LATENTS = {"vector": (6,), "4x4": (4, 4, 6), "8x8": (8, 8, 6)}


@pytest.fixture(params=list(LATENTS))
def translator(request):
    return Translator(dataclasses.replace(SMALL, latent=request.param, num_blocks=1))


@functools.partial(jax.jit, static_argnums=(0, 3))
def encode(translator, generator, images, domain):
    return translator.encode(generator, images, domain)


@functools.partial(jax.jit, static_argnums=(0, 3))
def decode(translator, generator, latents, domain):
    return translator.decode(generator, latents, domain)


@functools.partial(jax.jit, static_argnums=(0, 3))
def discriminate(translator, discriminator, images, domain):
    return translator.discriminate(discriminator, images, domain)


def test_shapes_and_ranges(translator, key):
    variables = translator.init(key)
    images = jax.random.uniform(key, (2, 16, 16, 3))
    mean, log_variance = encode(translator, variables.generator, images, "a")
    assert mean.shape == log_variance.shape == (2, *LATENTS[translator.settings.latent])
    for direction in ("ab", "ba"):
        made = translator.translate(variables.generator, images, direction=direction)
        assert made.shape == images.shape
        assert np.min(made) >= 0
        assert np.max(made) <= 1
    assert discriminate(translator, variables.discriminator, images, "b").shape == (2,)


def test_weights_are_drawn_with_the_variance_of_their_layer(key):
    variables = Translator(NetworkSettings(image_size=16, width=16, latent_size=32)).init(key)
    kernel = variables.generator["encoders"]["a"]["stages"][1]["kernel"]  # 3×3 positions of 4 · 16 channels
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)
    np.testing.assert_allclose(kernel.mean(), 0, atol=0.002)
    decoders = variables.generator["decoders"]
    assert not np.array_equal(*(decoders[d]["stages"][0]["kernel"] for d in "ab"))
    assert not variables.generator["encoders"]["a"]["stages"][1]["bias"].any()


def test_a_fine_grid_on_larger_images(key):
    translator = Translator(
        NetworkSettings(image_size=64, width=4, latent="16x16", latent_size=3, num_blocks=2)
    )
    variables = translator.init(key)
    mean, _ = encode(translator, variables.generator, jnp.zeros((1, 64, 64, 3)), "b")
    assert mean.shape == (1, 16, 16, 3)


def test_domains_share_what_the_settings_say(key):
    own, middle, encoder = (
        num_parameters(Translator(dataclasses.replace(SMALL, sharing=s)).init(key).generator)
        for s in ("nothing", "middle", "encoder")
    )
    into, out = (9 * 8 + 1) * 16 + (256 + 1) * 12, (6 + 1) * 256 + (9 * 16 + 1) * 8
    assert own - middle == into + out
    assert middle - encoder == (9 * 4 * 3 + 1) * 4 + (9 * 4 * 4 + 1) * 8


def test_a_shared_encoder_reads_both_domains_alike(key):
    images = jax.random.uniform(key, (2, 16, 16, 3))
    for sharing, are_equal in (("nothing", False), ("middle", False), ("encoder", True)):
        translator = Translator(dataclasses.replace(SMALL, sharing=sharing))
        generator = translator.init(key).generator
        a, b = (encode(translator, generator, images, d)[0] for d in "ab")
        assert np.array_equal(a, b) == are_equal


def test_the_log_variance_is_bounded(key):
    translator = Translator(SMALL)
    generator = jax.tree.map(lambda w: 100 * w, translator.init(key).generator)
    _, log_variance = encode(translator, generator, jax.random.uniform(key, (2, 16, 16, 3)), "a")
    assert np.abs(log_variance).max() <= 8


def test_domains_have_their_own_networks(translator, key):
    variables, images = translator.init(key), jax.random.uniform(key, (2, 16, 16, 3))
    a, _ = encode(translator, variables.generator, images, "a")
    assert not np.allclose(*(decode(translator, variables.generator, a, d) for d in "ab"))
    scores = [discriminate(translator, variables.discriminator, images, d) for d in "ab"]
    assert not np.allclose(*scores)


def test_rearrangements_are_inverse_and_keep_neighbors():
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype(np.float32)
    deep = jax.jit(to_depth)(x)
    np.testing.assert_array_equal(jax.jit(to_space)(deep), x)
    np.testing.assert_array_equal(np.asarray(deep)[0, 1, 1], x[0, 2:4, 2:4].reshape(-1))


@pytest.mark.parametrize(("stages", "expected"), [(2, 16), (0, 32)])
def test_the_stated_receptive_field_is_what_one_nan_pixel_reaches(stages, expected, key):
    settings = NetworkSettings(image_size=32, width=2, discriminator_stages=stages)
    translator = Translator(settings)
    assert settings.receptive_field == expected
    row = 16 if stages else 0
    images = np.zeros((32, 32, 32, 3), np.float32)
    images[np.arange(32), row, np.arange(32)] = np.nan
    score = jax.jit(lambda x: translator.discriminate(translator.init(key).discriminator, x, "a"))
    scores = score(images)[:, 4, 4] if stages else score(images)
    assert int(jnp.isnan(scores).sum()) == expected


def test_equal_settings_make_equal_translators_and_compile_once(key):
    first, second = Translator(SMALL), Translator(dataclasses.replace(SMALL))
    assert first == second
    assert hash(first) == hash(second)
    traces = []

    @jax.jit
    def counted(generator, images):
        traces.append(1)
        return first.translate(generator, images, direction="ab")

    images = jnp.zeros((1, 16, 16, 3))
    generator = first.init(key).generator
    np.testing.assert_allclose(
        counted(generator, images), second.translate(generator, images, direction="ab"), atol=1e-6
    )
    counted(generator, images)
    assert len(traces) == 1


def test_interpolation_goes_from_one_reconstruction_to_the_other(translator, key):
    generator = translator.init(key).generator
    first, second = np.random.default_rng(0).uniform(size=(2, 3, 16, 16, 3)).astype(np.float32)
    path = jax.jit(functools.partial(translator.interpolate, domain="b", num_steps=5))(
        generator, first, second
    )
    assert path.shape == (3, 5, 16, 16, 3)
    for end, images in ((0, first), (-1, second)):
        expected = translator.reconstruct(generator, images, domain="b")
        np.testing.assert_allclose(path[:, end], expected, atol=1e-5)


def test_no_noise_where_none_is_wanted(key):
    mean, log_variance = jnp.ones((2, 6)), jnp.zeros((2, 6))
    silent = Translator(dataclasses.replace(SMALL, variance="none"))
    np.testing.assert_array_equal(silent.sample(key, mean, log_variance), mean)
    drawn = Translator(SMALL).sample(key, jnp.zeros((4000, 6)), jnp.full((4000, 6), np.log(4.0)))
    np.testing.assert_allclose(drawn.std(), 2, rtol=0.03)


def test_bfloat16_computes_nearly_the_same_and_returns_float32(key):
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    fine, coarse = Translator(SMALL), Translator(dataclasses.replace(SMALL, precision="bfloat16"))
    generator = fine.init(key).generator
    made = coarse.translate(generator, images, direction="ab")
    assert made.dtype == jnp.float32
    expected = fine.translate(generator, images, direction="ab")
    np.testing.assert_allclose(made, expected, atol=0.03)
    assert not np.array_equal(made, expected)


def test_a_white_image_in_bfloat16_can_become_darker(key):
    translator = Translator(dataclasses.replace(SMALL, precision="bfloat16"))
    generator = translator.init(key).generator
    last = generator["decoders"]["a"]["last"]
    last["bias"] = jnp.full_like(last["bias"], 8.0)  # rounds to a white image in 8 bits
    latents = jnp.zeros((1, SMALL.latent_size))
    slopes = jax.jit(jax.grad(lambda g: translator.decode(g, latents, "a").sum()))(generator)
    assert (slopes["decoders"]["a"]["last"]["bias"] > 0).all()


def test_bad_input_is_named(key):
    translator = Translator(SMALL)
    generator = translator.init(key).generator
    images = jnp.zeros((1, 16, 16, 3))
    for bad, message in (
        (images + 2, "images go from 2 to 2"),
        (images[..., :1], r"expected \(batch, 16, 16, 3\)"),
        (images.at[0, 0].set(jnp.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            translator.translate(generator, bad, direction="ab")
    with pytest.raises(ValueError, match="direction is 'a'"):
        translator.translate(generator, images, direction="a")
    with pytest.raises(ValueError, match="domain is 'c'"):
        translator.reconstruct(generator, images, domain="c")
    for change, message in (
        ({"image_size": 24}, "image_size is 24: expected a power of 2"),
        ({"image_size": 16, "latent": "16x16"}, "latent is '16x16': too fine"),
        ({"width": 0}, "width is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SMALL, **change)
    for name in ("latent", "sharing", "variance"):  # checked by type in these tests, and by hand for users
        settings = types.SimpleNamespace(**dataclasses.asdict(SMALL) | {name: "all"})
        with pytest.raises(ValueError, match=f"{name} is 'all': expected one of"):
            NetworkSettings.__post_init__(settings)
