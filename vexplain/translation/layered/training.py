"""Training of a translation in layers, as an init/update pair for `streaming.fold`.

The images of both domains go through the network as one batch. One step runs the generator once, updates the
critic on the translations, and then the generator against the updated critic.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from vexplain.translation.layered.compositing import (
    composite,
    estimated_coverage,
    filled_background,
)
from vexplain.translation.layered.losses import LOSSES, SAME_POSE, LayeredWeights, Made, Truth
from vexplain.translation.layered.model import LayeredTranslator, Layers
from vexplain.translation.layered.scenes import Fitted, Scene
from vexplain.translation.losses import adversarial_loss, gradient_penalty
from vexplain.translation.model import TranslatorVariables
from vexplain.translation.networks import DOMAINS
from vexplain.translation.training import TranslationState, first_state, next_state
from vexplain.typing import Array, Batch, Images, Key, Masks, PyTree

_PENALIZED = 4  # R1 sees one image in so many
_CUT = 0.6  # a half-plane is hidden whose edge is at most so far from the middle of the object


def layered_training(
    translator: LayeredTranslator,
    weights: LayeredWeights,
    optimizer: optax.GradientTransformation,
    *,
    discriminator_optimizer: optax.GradientTransformation | None = None,
    average_decay: float = 0.999,
    seed: int = 0,
) -> tuple[Callable[[TranslatorVariables], TranslationState], Callable[..., TranslationState]]:
    """Returns `init(variables)` and `update(state, batch)`, which train a translator on unpaired batches.

    Batches have "a" and "b", as many images of each domain; for a translator with scenes also "coverage_a"
    and "coverage_b", and "scenes_b" and "holes_b" of a `Scene`. A step with a loss that is not finite leaves
    the variables as they were; `translation_report` raises.

    Args:
        translator: the networks.
        weights: of the losses.
        optimizer: of the generator.
        discriminator_optimizer: the same if left out.
        average_decay: of the moving average is min(average_decay, (1 + step) / (10 + step)).
        seed: of what is hidden and of the noise, functions of seed and step.

    Raises:
        ValueError: weights that ask for equal poses, for a translator with scenes (begin with
            `SCENE_WEIGHTS`), or for what belongs in scenes, for one without.
    """
    has_scenes = translator.settings.has_scenes
    _check_weights(weights, has_scenes)
    optimizers = (optimizer, discriminator_optimizer or optimizer)
    names = [name for name in LOSSES if getattr(weights, name)]
    known = [*names, "discriminator", *(["penalty"] if weights.penalty else [])] if weights.gan else names

    def init(variables: TranslatorVariables) -> TranslationState:
        return first_state(variables, optimizers, known)

    def update(state: TranslationState, batch: Batch) -> TranslationState:
        images = jnp.concatenate([jnp.asarray(batch["a"]), jnp.asarray(batch["b"])])
        scene = Scene(jnp.asarray(batch["scenes_b"]), jnp.asarray(batch["holes_b"])) if has_scenes else None
        given = [jnp.asarray(batch[f"coverage_{d}"]) for d in DOMAINS] if has_scenes else []
        coverage = jnp.concatenate(given) if given else estimated_coverage(images)
        domains = jnp.repeat(jnp.eye(2), len(batch["a"]), 0)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        generator, critic = state.variables.generator, state.variables.discriminator
        made, send = jax.vjp(
            lambda params: _made(translator, weights, params, images, coverage, domains, scene, key),
            generator,
        )
        losses, critic_opt = {}, state.opt_states[1]
        if weights.gan:
            objective = functools.partial(
                _critic_loss, translator, weights, images=images, coverage=coverage, domains=domains
            )
            slopes, losses = jax.grad(objective, has_aux=True)(critic, made.other)
            updates, critic_opt = optimizers[1].update(slopes, critic_opt, critic)
            critic = optax.apply_updates(critic, updates)
        truth = Truth(images, coverage, lambda made: _scores(translator, critic, made, domains[:, ::-1]))

        def total(made: Made):
            terms = {name: LOSSES[name](made, truth) for name in names}
            return sum(getattr(weights, name) * term for name, term in terms.items()), terms

        slopes, more = jax.grad(total, has_aux=True)(made)
        updates, opt_state = optimizers[0].update(send(slopes)[0], state.opt_states[0], generator)
        variables = TranslatorVariables(optax.apply_updates(generator, updates), critic)
        return next_state(state, variables, (opt_state, critic_opt), losses | more, average_decay)

    return init, update


def _check_weights(weights: LayeredWeights, has_scenes: bool) -> None:
    for name in SAME_POSE if has_scenes else ("fit",):
        if weight := getattr(weights, name):
            raise ValueError(
                f"weights.{name} is {weight}: expected 0 with has_scenes={has_scenes}"
                + (", where translations have a pose of their own; begin with SCENE_WEIGHTS" * has_scenes)
            )


def _made(
    translator: LayeredTranslator,
    weights: LayeredWeights,
    generator: PyTree,
    images: Images,
    coverage: Masks,
    domains: Array,
    scene: Scene | None,
    key: Key,
) -> Made:
    hide_key, noise_key = jax.random.split(key)
    background = filled_background(images, coverage)
    codes = translator.encode(generator, images, coverage)
    places = translator.coordinates(generator, codes, domains)
    texture = translator.texture(generator, codes, places)
    own, across = (translator.coverage(generator, codes, places, d) for d in (domains, domains[:, ::-1]))
    visible = _visible(hide_key, jax.lax.stop_gradient(places), jax.lax.stop_gradient(across))
    part = translator.encode(generator, composite(images, visible, background), coverage * visible)
    fitted = None if scene is None else _fitted(translator, generator, scene)
    translation = Layers(texture, across, background)
    if fitted is not None:  # products go into the scenes, and what is worn among the products
        to = Fitted(*(jnp.roll(x, len(x) // 2, 0) for x in fitted))
        translation = translator.placed(generator, codes, texture, places, to, domains[:, ::-1])
    noise = weights.cycle_noise * jax.random.normal(noise_key, images.shape)
    back_codes = translator.encode(generator, translation.image + noise, translation.coverage)
    back_places = translator.coordinates(generator, back_codes, domains[:, ::-1])
    back_texture = translator.texture(generator, back_codes, back_places)
    if fitted is None:
        back_coverage = translator.coverage(generator, back_codes, back_places, domains)
        back = Layers(back_texture, back_coverage, background)
    else:  # what a product looked like is not seen in a scene, what belongs into the scene is
        half = len(images) // 2
        looked = Fitted(codes.shape, background)
        to = Fitted(*(jnp.concatenate([a[:half], b[half:]]) for a, b in zip(looked, fitted, strict=True)))
        back = translator.placed(generator, back_codes, back_texture, back_places, to, domains)
    return Made(
        codes,
        Layers(texture, own, background),
        translation,
        translator.texture(generator, part, places),
        part,
        back_codes,
        back,
        fitted,
    )


def _fitted(translator: LayeredTranslator, generator: PyTree, scene: Scene) -> Fitted:
    """Where images belong: half of them among the products, half of them in the scenes."""
    halves = (translator.fitted(generator, to, len(scene.holes)) for to in (None, scene))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *halves)


def _visible(key: Key, places: Array, other: Masks) -> Masks:
    """What is shown of each image: what the other domain's shape would cover too, or a half-plane (ours)."""
    kind_key, angle_key, cut_key = jax.random.split(key, 3)
    count = len(places)
    angle = jax.random.uniform(angle_key, (count,), maxval=2 * jnp.pi)
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    cut = jax.random.uniform(cut_key, (count,), minval=-_CUT, maxval=_CUT)
    half = jnp.einsum("nhwi,ni->nhw", places, direction) < cut[:, None, None]
    is_half = jax.random.bernoulli(kind_key, 0.5, (count, 1, 1))
    return jnp.where(is_half, half.astype(other.dtype), other)


def _scores(translator: LayeredTranslator, critic: PyTree, made: Layers, domains: Array) -> Array:
    """Scores of translations; on plain backgrounds what they cover is estimated, as of any image."""
    coverage = made.coverage if translator.settings.has_scenes else None
    return translator.discriminate(critic, made.image, domains, coverage)


def _critic_loss(translator, weights: LayeredWeights, critic, fakes, *, images, coverage, domains):
    score = functools.partial(translator.discriminate, critic)
    total = adversarial_loss(score(images, domains, coverage), target=1).mean()
    total += adversarial_loss(_scores(translator, critic, fakes, domains[:, ::-1]), target=0).mean()
    losses = {"discriminator": total}
    if weights.penalty:
        some = {"domains": domains[::_PENALIZED], "coverage": coverage[::_PENALIZED]}
        losses["penalty"] = gradient_penalty(lambda x: score(x, **some), images[::_PENALIZED]).mean()
        total += weights.penalty * losses["penalty"]
    return total, losses
