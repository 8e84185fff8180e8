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
from vexplain.translation.layered.losses import LOSSES, LayeredWeights, Made, Truth
from vexplain.translation.layered.model import LayeredTranslator, Layers
from vexplain.translation.losses import adversarial_loss, gradient_penalty
from vexplain.translation.model import TranslatorVariables
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

    Batches have "a" and "b", as many images of each domain. A step with a loss that is not finite leaves the
    variables as they were; `translation_report` raises.

    Args:
        translator: the networks.
        weights: of the losses.
        optimizer: of the generator.
        discriminator_optimizer: the same if left out.
        average_decay: of the moving average is min(average_decay, (1 + step) / (10 + step)).
        seed: of what is hidden and of the noise, functions of seed and step.
    """
    optimizers = (optimizer, discriminator_optimizer or optimizer)
    names = [name for name in LOSSES if getattr(weights, name)]
    known = [*names, "discriminator", *(["penalty"] if weights.penalty else [])] if weights.gan else names

    def init(variables: TranslatorVariables) -> TranslationState:
        return first_state(variables, optimizers, known)

    def update(state: TranslationState, batch: Batch) -> TranslationState:
        images = jnp.concatenate([jnp.asarray(batch["a"]), jnp.asarray(batch["b"])])
        coverage = estimated_coverage(images)
        domains = jnp.repeat(jnp.eye(2), len(batch["a"]), 0)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        generator, critic = state.variables.generator, state.variables.discriminator
        made, send = jax.vjp(
            lambda params: _made(translator, weights, params, images, coverage, domains, key), generator
        )
        losses, critic_opt = {}, state.opt_states[1]
        if weights.gan:
            objective = functools.partial(
                _critic_loss, translator, weights, images=images, coverage=coverage, domains=domains
            )
            slopes, losses = jax.grad(objective, has_aux=True)(critic, made.other.image)
            updates, critic_opt = optimizers[1].update(slopes, critic_opt, critic)
            critic = optax.apply_updates(critic, updates)
        truth = Truth(images, coverage, lambda x: translator.discriminate(critic, x, domains[:, ::-1]))

        def total(made: Made):
            terms = {name: LOSSES[name](made, truth) for name in names}
            return sum(getattr(weights, name) * term for name, term in terms.items()), terms

        slopes, more = jax.grad(total, has_aux=True)(made)
        updates, opt_state = optimizers[0].update(send(slopes)[0], state.opt_states[0], generator)
        variables = TranslatorVariables(optax.apply_updates(generator, updates), critic)
        return next_state(state, variables, (opt_state, critic_opt), losses | more, average_decay)

    return init, update


def _made(
    translator: LayeredTranslator,
    weights: LayeredWeights,
    generator: PyTree,
    images: Images,
    coverage: Masks,
    domains: Array,
    key: Key,
) -> Made:
    hide_key, noise_key = jax.random.split(key)
    background = filled_background(images, coverage)
    codes = translator.encode(generator, images, coverage)
    places = translator.coordinates(generator, codes, domains)
    texture = translator.texture(generator, codes, places)
    own, other = (translator.coverage(generator, codes, places, d) for d in (domains, domains[:, ::-1]))
    visible = _visible(hide_key, jax.lax.stop_gradient(places), jax.lax.stop_gradient(other))
    part = translator.encode(generator, composite(images, visible, background), coverage * visible)
    translation = Layers(texture, other, background)
    noise = weights.cycle_noise * jax.random.normal(noise_key, images.shape)
    back_codes = translator.encode(generator, translation.image + noise, other)
    back_places = translator.coordinates(generator, back_codes, domains[:, ::-1])
    back = Layers(
        translator.texture(generator, back_codes, back_places),
        translator.coverage(generator, back_codes, back_places, domains),
        background,
    )
    return Made(
        codes,
        Layers(texture, own, background),
        translation,
        translator.texture(generator, part, places),
        part,
        back_codes,
        back,
    )


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


def _critic_loss(translator, weights: LayeredWeights, critic, fakes, *, images, coverage, domains):
    score = functools.partial(translator.discriminate, critic)
    total = adversarial_loss(score(images, domains, coverage), target=1).mean()
    total += adversarial_loss(score(fakes, domains[:, ::-1]), target=0).mean()
    losses = {"discriminator": total}
    if weights.penalty:
        some = {"domains": domains[::_PENALIZED], "coverage": coverage[::_PENALIZED]}
        losses["penalty"] = gradient_penalty(lambda x: score(x, **some), images[::_PENALIZED]).mean()
        total += weights.penalty * losses["penalty"]
    return total, losses
