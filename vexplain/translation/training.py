"""Training of shape translation, as init/update pairs for `streaming.fold`.

One step draws the latents of both batches, makes reconstructions, translations and what comes back of them,
updates the discriminators on the translations, and then the generator against the updated discriminators; the
generator runs forward once. Everything is one compiled program, with averages of the generator's parameters
kept beside them.

`Weights` says which losses there are. A loss of weight 0 is not computed, so that the ladder of the talk
(two VAEs; + GAN; + cycle; + similarity) is four settings of the same update.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vexplain.translation.losses import absolute_error, adversarial_loss, gradient_penalty, kl_divergence
from vexplain.translation.model import DIRECTIONS, Translator, TranslatorVariables
from vexplain.translation.networks import DOMAINS
from vexplain.translation.similarity import (
    color_distance,
    gram_distance,
    latent_distance,
    low_pass_distance,
    offset_distance,
    pose_distance,
)
from vexplain.typing import Array, Batch, Float, Images, Int, Key, PyTree

_DECAY = 0.98  # of the running averages of the losses
_PENALIZED = 4  # R1 sees one image in so many, at a quarter of its cost and with the same expected gradient


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the losses, which are means over pixels of images in [0, 1] and over latent numbers.

    Attributes:
        reconstruction: mean |x - x_aa|.
        kl: KL of the latents of images, in nats a number.
        gan: least-squares loss of the translations.
        cycle: mean |x - x_aba|.
        kl_cycle: KL of the latents of translations.
        color: similarity S1, distance of color statistics of the foreground.
        gram: S2, of Gram matrices of frozen features.
        latent: S4, between the latents of an image and of its translation.
        low_pass: S5, of images averaged over blocks.
        pose: S8, of tilt and size.
        offset: S9, of the shift of the middle, as the object sees it.
        identity: S6, mean |x_b - what the translator a to b makes of x_b|.
        paired: mean |x_b - x_ab|, for batches whose images are partners: the supervised upper bound.
        penalty: R1 of the discriminators, as gamma.
        cycle_noise: no weight, but the standard deviation of Gaussian noise, in units of [0, 1], on
            translations before they are encoded again. What a translation hides of its input as a faint
            pattern is lost in it, so that the cycle can only close by what is seen (Bashkirova, Usman,
            Saenko, Adversarial Self-Defense for Cycle-Consistent GANs, NeurIPS 2019).
    """

    reconstruction: float = 10.0
    kl: float = 0.02
    gan: float = 1.0
    cycle: float = 10.0
    kl_cycle: float = 0.0
    color: float = 5.0
    gram: float = 0.0
    latent: float = 0.0
    low_pass: float = 0.0
    pose: float = 0.0
    offset: float = 0.0
    identity: float = 0.0
    paired: float = 0.0
    penalty: float = 0.5
    cycle_noise: float = 0.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}: expected a weight of 0 or more")

    @property
    def translates(self) -> bool:
        """Whether any loss looks at translations."""
        similarities = (self.color, self.gram, self.latent, self.low_pass, self.pose, self.offset)
        return any((self.gan, self.cycle, self.kl_cycle, self.paired, *similarities))

    @property
    def returns(self) -> bool:
        """Whether any loss encodes translations again."""
        return any((self.cycle, self.latent, self.kl_cycle))


class TranslationState(NamedTuple):
    """Everything that training changes."""

    variables: TranslatorVariables
    average: PyTree  # exponential moving average of the generator's parameters: what to translate with
    opt_states: tuple[PyTree, PyTree]
    step: Int[Array, ""]
    losses: dict[str, Float[Array, ""]]  # running averages, unweighted
    diverged_at: Int[Array, ""]  # first step with a loss that is not finite; -1 for none
    diverged_terms: dict[str, Array]  # which of them


class TranslationDiverged(RuntimeError):
    """A loss of a step was NaN or infinite."""


def adversarial_training(
    translator: Translator,
    weights: Weights,
    optimizer: optax.GradientTransformation,
    *,
    discriminator_optimizer: optax.GradientTransformation | None = None,
    average_decay: float = 0.999,
    seed: int = 0,
) -> tuple[Callable[[TranslatorVariables], TranslationState], Callable[..., TranslationState]]:
    """Returns the pair (init, update) that trains a translator on unpaired batches.

    A step with a loss that is not finite leaves the variables as they were and is remembered;
    `translation_report` raises for it.

    Args:
        translator: the networks.
        weights: of the losses.
        optimizer: of the generator.
        discriminator_optimizer: the same if left out.
        average_decay: of the moving average, at most; early steps count more.
        seed: of the latents' noise, which is a function of seed and step.

    Returns:
        `init(variables) -> TranslationState` and `update(state, batch) -> TranslationState`. Batches have "a"
        and "b", images of the two domains.
    """
    optimizers = (optimizer, discriminator_optimizer or optimizer)
    names = _names(weights)

    def init(variables: TranslatorVariables) -> TranslationState:
        return TranslationState(
            variables=variables,
            average=jax.tree.map(jnp.array, variables.generator),
            opt_states=(optimizers[0].init(variables.generator), optimizers[1].init(variables.discriminator)),
            step=jnp.zeros((), jnp.int32),
            losses={name: jnp.zeros(()) for name in names},
            diverged_at=jnp.full((), -1, jnp.int32),
            diverged_terms={name: jnp.zeros((), bool) for name in names},
        )

    def update(state: TranslationState, batch: Batch) -> TranslationState:
        images: dict[str, Images] = {d: jnp.asarray(batch[d]) for d in DOMAINS}
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        generator, critic = state.variables.generator, state.variables.discriminator
        run = lambda params: generated(translator, weights, params, images, key)  # noqa: E731
        made, send = jax.vjp(run, generator)
        losses, critic_opt = {}, state.opt_states[1]
        if weights.gan:
            objective = lambda params: _critic_loss(translator, weights, params, images, made)  # noqa: E731
            slopes, losses = jax.grad(objective, has_aux=True)(critic)
            updates, critic_opt = optimizers[1].update(slopes, critic_opt, critic)
            critic = optax.apply_updates(critic, updates)
        objective = lambda made: _generator_loss(translator, weights, critic, images, made)  # noqa: E731
        slopes, more = jax.grad(objective, has_aux=True)(made)
        updates, opt_state = optimizers[0].update(send(slopes)[0], state.opt_states[0], generator)
        new = (TranslatorVariables(optax.apply_updates(generator, updates), critic), (opt_state, critic_opt))
        return _advanced(state, new, losses | more, average_decay)

    return init, update


def generated(
    translator: Translator, weights: Weights, generator: PyTree, images: dict[str, Images], key: Key
):
    """Returns all images and latents that the losses look at, by name.

    Args:
        translator: the networks.
        weights: what is needed.
        generator: parameters.
        images: by domain.
        key: of the latents' noise.

    Returns:
        "latents", "reconstructions" and "identities" by domain; "translations", "returned latents" and
        "returns" by direction.
    """
    keys = iter(jax.random.split(key, 6))

    def disturbed(key, images):
        return images + weights.cycle_noise * jax.random.normal(key, images.shape, images.dtype)

    encode = lambda x, d: translator.encode(generator, x, d)  # noqa: E731
    decode = lambda z, d: translator.decode(generator, z, d)  # noqa: E731
    made: dict[str, dict[str, Any]] = {"latents": {d: encode(images[d], d) for d in DOMAINS}}
    drawn = {d: translator.sample(next(keys), *made["latents"][d]) for d in DOMAINS}
    if weights.reconstruction:
        made["reconstructions"] = {d: decode(drawn[d], d) for d in DOMAINS}
    if weights.translates:
        made["translations"] = {name: decode(drawn[s], t) for name, (s, t) in DIRECTIONS.items()}
    if weights.returns:
        seen = {n: disturbed(next(keys), made["translations"][n]) for n in DIRECTIONS}
        made["returned latents"] = {n: encode(seen[n], t) for n, (_, t) in DIRECTIONS.items()}
    if weights.cycle:
        back = made["returned latents"]
        again = {name: translator.sample(next(keys), *back[name]) for name in DIRECTIONS}
        made["returns"] = {name: decode(again[name], s) for name, (s, _) in DIRECTIONS.items()}
    if weights.identity:
        made["identities"] = {t: decode(encode(images[t], s)[0], t) for s, t in DIRECTIONS.values()}
    return made


def translation_report(state: TranslationState) -> dict[str, Array]:
    """Returns the running averages of the losses, for the progress bar and the logs.

    Args:
        state: of the training.

    Raises:
        TranslationDiverged: a loss of an earlier step was not finite; says which, and when.
    """
    if int(state.diverged_at) >= 0:
        terms = ", ".join(name for name, is_bad in state.diverged_terms.items() if bool(is_bad))
        raise TranslationDiverged(
            f"not finite at step {int(state.diverged_at)}: {terms}; the variables from before that step are "
            "in the last checkpoint. Lower the learning rate or the weight of that loss, or look for NaN in "
            "the images"
        )
    return dict(state.losses)


def _names(weights: Weights) -> tuple[str, ...]:
    fields = [
        field.name for field in dataclasses.fields(Weights) if field.name not in ("penalty", "cycle_noise")
    ]
    names = [name for name in fields if getattr(weights, name)]
    if not weights.gan:
        return tuple(names)
    return (*names, "discriminator", *(("penalty",) if weights.penalty else ()))


def _critic_loss(translator, weights: Weights, critic, images, made):
    score = lambda x, d: translator.discriminate(critic, x, d)  # noqa: E731
    total, penalty = jnp.zeros(()), jnp.zeros(())
    for name, (_, target) in DIRECTIONS.items():
        fakes = jax.lax.stop_gradient(made["translations"][name])
        total += adversarial_loss(score(images[target], target), target=1).mean()
        total += adversarial_loss(score(fakes, target), target=0).mean()
    losses = {"discriminator": total}
    if weights.penalty:
        for domain in DOMAINS:
            score_fn = functools.partial(score, d=domain)
            penalty += gradient_penalty(score_fn, images[domain][::_PENALIZED]).mean()
        losses["penalty"] = penalty
    return total + weights.penalty * penalty, losses


def _generator_loss(translator, weights: Weights, critic, images, made):
    terms = {}

    def add(name: str, values: Any):
        if getattr(weights, name):
            terms[name] = jnp.stack([value.mean() for value in values()]).sum()

    pairs = [(made.get("translations", {}).get(n), images[s], n, s, t) for n, (s, t) in DIRECTIONS.items()]
    add("reconstruction", lambda: [absolute_error(images[d], made["reconstructions"][d]) for d in DOMAINS])
    add("kl", lambda: [kl_divergence(*made["latents"][d]) for d in DOMAINS])
    add(
        "gan",
        lambda: [
            adversarial_loss(translator.discriminate(critic, fake, t), target=1) for fake, _, _, _, t in pairs
        ],
    )
    add("cycle", lambda: [absolute_error(x, made["returns"][n]) for _, x, n, _, _ in pairs])
    add("kl_cycle", lambda: [kl_divergence(*made["returned latents"][n]) for n in DIRECTIONS])
    add("color", lambda: [color_distance(x, fake) for fake, x, *_ in pairs])
    add("gram", lambda: [gram_distance(x, fake, key=jax.random.key(0)) for fake, x, *_ in pairs])
    add(
        "latent",
        lambda: [
            latent_distance(made["latents"][s][0], made["returned latents"][n][0]) for _, _, n, s, _ in pairs
        ],
    )
    add("low_pass", lambda: [low_pass_distance(x, fake) for fake, x, *_ in pairs])
    add("pose", lambda: [pose_distance(x, fake) for fake, x, *_ in pairs])
    add("offset", lambda: [offset_distance(x, fake) for fake, x, *_ in pairs])
    add("paired", lambda: [absolute_error(images[t], fake) for fake, _, _, _, t in pairs])
    add("identity", lambda: [absolute_error(images[d], made["identities"][d]) for d in DOMAINS])
    return sum(getattr(weights, name) * term for name, term in terms.items()), terms


def _advanced(
    state: TranslationState, new, losses: dict[str, Array], average_decay: float
) -> TranslationState:
    is_bad = {name: ~jnp.isfinite(loss) for name, loss in losses.items()}
    bad_now = jnp.stack(list(is_bad.values())).any()
    is_good = ~bad_now & (state.diverged_at < 0)
    keep = lambda new, old: jnp.where(is_good, new, old)  # noqa: E731
    variables, opt_states = jax.tree.map(keep, new, (state.variables, state.opt_states))
    early = (1.0 + state.step) / (10.0 + state.step)
    decay = jnp.minimum(average_decay, early)
    average = jax.tree.map(
        lambda a, p: keep(decay * a + (1 - decay) * p, a), state.average, variables.generator
    )
    running = jnp.minimum(_DECAY, state.step / (state.step + 1))
    smooth = {n: running * state.losses[n] + (1 - running) * losses[n] for n in state.losses}
    first = bad_now & (state.diverged_at < 0)
    return TranslationState(
        variables,
        average,
        opt_states,
        state.step + 1,
        smooth,
        jnp.where(first, state.step, state.diverged_at),
        {n: jnp.where(first, is_bad[n], state.diverged_terms[n]) for n in state.diverged_terms},
    )
