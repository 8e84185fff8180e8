"""Training of shape translation, as init/update pairs for `streaming.fold`.

One step runs the generator once, updates the discriminators on the translations, and then the generator
against the updated discriminators. A loss of weight 0 is not computed, so that the ladder of the talk (two
VAEs; + GAN; + cycle; + similarity) is four settings of the same update.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vexplain._keeping import Store, identity, kept
from vexplain.streaming import Checkpoint, fold
from vexplain.streaming.devices import Mesh
from vexplain.streaming.divergence import Divergence, guarded, no_divergence, raise_if_diverged, running_mean
from vexplain.translation import similarity
from vexplain.translation.losses import (
    absolute_error,
    adversarial_loss,
    check_weights,
    gradient_penalty,
    kl_divergence,
)
from vexplain.translation.model import DIRECTIONS, Translator, TranslatorVariables
from vexplain.translation.networks import DOMAINS
from vexplain.typing import Array, Batch, Float, Images, Int, Key, PyTree

_PENALIZED = 4  # R1 sees one image in so many, at a quarter of its cost and with the same expected gradient


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the losses, which are means over pixels of images in [0, 1] and over latent numbers.

    Images x of domain A become x_aa by reconstruction, x_ab by translation and x_aba by translation back.
    """

    reconstruction: float = 10.0  # mean |x - x_aa|
    kl: float = 0.02  # KL of the latents of images, in nats a number
    gan: float = 1.0  # least-squares loss of the translations
    cycle: float = 10.0  # mean |x - x_aba|
    kl_cycle: float = 0.0  # KL of the latents of translations
    color: float = 5.0  # similarity S1, of color statistics of the foreground
    gram: float = 0.0  # S2, of Gram matrices of frozen features
    latent: float = 0.0  # S4, between the latents of an image and of its translation
    low_pass: float = 0.0  # S5, of images averaged over blocks
    pose: float = 0.0  # S8, of tilt and size
    offset: float = 0.0  # S9, of the shift of the middle
    identity: float = 0.0  # S6, mean |y - what the translator from A to B makes of y|, for y of B
    paired: float = 0.0  # mean |y - x_ab|, for batches of partners x and y: the supervised upper bound
    penalty: float = 0.5  # gamma of R1, of the discriminators
    # No weight: standard deviation of Gaussian noise on translations before they are encoded again, in which
    # a faint pattern that hides the input is lost (Bashkirova, Usman, Saenko, Adversarial Self-Defense for
    # Cycle-Consistent GANs, NeurIPS 2019).
    cycle_noise: float = 0.0

    def __post_init__(self):
        check_weights(self)

    @property
    def translates(self) -> bool:
        """Whether any loss looks at translations."""
        similarities = (self.color, self.gram, self.latent, self.low_pass, self.pose, self.offset)
        return any((self.gan, self.cycle, self.kl_cycle, self.paired, *similarities))

    @property
    def returns(self) -> bool:
        """Whether any loss encodes translations again."""
        return any((self.cycle, self.latent, self.kl_cycle))


VAES = Weights(gan=0.0, cycle=0.0, color=0.0)  # two autoencoders that do not know of each other
FULL_MODEL = Weights(gan=2.0, cycle_noise=0.05, color=5.0, pose=2.0, offset=5.0)  # of the study
_UPDATES: Store = collections.OrderedDict()


class TranslationState(NamedTuple):
    """Everything that training changes."""

    variables: TranslatorVariables
    average: PyTree  # exponential moving average of the generator's parameters: what to translate with
    opt_states: tuple[PyTree, PyTree]
    step: Int[Array, ""]
    losses: dict[str, Float[Array, ""]]  # running averages, unweighted
    divergence: Divergence


def adversarial_training(
    translator: Translator,
    weights: Weights,
    optimizer: optax.GradientTransformation,
    *,
    discriminator_optimizer: optax.GradientTransformation | None = None,
    average_decay: float = 0.999,
    seed: int = 0,
) -> tuple[Callable[[TranslatorVariables], TranslationState], Callable[..., TranslationState]]:
    """Returns `init(variables)` and `update(state, batch)`, which train a translator on unpaired batches.

    Batches have "a" and "b", images of the two domains. A step with a loss that is not finite leaves the
    variables as they were; `translation_report` raises.

    Args:
        translator: the networks.
        weights: of the losses.
        optimizer: of the generator.
        discriminator_optimizer: the same if left out.
        average_decay: of the moving average is min(average_decay, (1 + step) / (10 + step)).
        seed: of the latents' noise, which is a function of seed and step.
    """
    optimizers = (optimizer, discriminator_optimizer or optimizer)

    def init(variables: TranslatorVariables) -> TranslationState:
        return first_state(variables, optimizers, _names(weights))

    def update(state: TranslationState, batch: Batch) -> TranslationState:
        images: dict[str, Images] = {d: jnp.asarray(batch[d]) for d in DOMAINS}
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        generator, critic = state.variables.generator, state.variables.discriminator
        made, send = jax.vjp(lambda params: _generated(translator, weights, params, images, key), generator)
        losses, critic_opt = {}, state.opt_states[1]
        if weights.gan:
            objective = lambda params: _critic_loss(translator, weights, params, images, made)  # noqa: E731
            slopes, losses = jax.grad(objective, has_aux=True)(critic)
            updates, critic_opt = optimizers[1].update(slopes, critic_opt, critic)
            critic = optax.apply_updates(critic, updates)
        objective = lambda made: _generator_loss(translator, weights, critic, images, made)  # noqa: E731
        slopes, more = jax.grad(objective, has_aux=True)(made)
        updates, opt_state = optimizers[0].update(send(slopes)[0], state.opt_states[0], generator)
        losses |= more
        variables = TranslatorVariables(optax.apply_updates(generator, updates), critic)
        return next_state(state, variables, (opt_state, critic_opt), losses, average_decay)

    return init, update


def train_translator(
    translator: Translator,
    weights: Weights,
    batch_fn: Callable[[int], Batch],
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    variables: TranslatorVariables | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = None,
) -> TranslationState:
    """Returns the state after `num_steps` of `adversarial_training` on all devices of a mesh.

    A training goes on where its checkpoint is. With the weights `VAES` first, and with the variables of that
    state then, the autoencoders are there before they translate.

    Args:
        translator: the networks.
        weights: of the losses.
        batch_fn: the batch of step t, see `unpaired_batches`.
        optimizer: of generator and discriminators.
        num_steps: in all, those done before a resume included.
        variables: to begin with; drawn by the seed if left out.
        seed: of the variables and of the latents' noise.
        mesh: devices; one if left out.
        checkpoint: where the state is saved, and where a training that was interrupted goes on.
        description: of the progress bar; `None` shows none.

    Raises:
        TrainingDiverged: a loss was not finite.
        CheckpointError: the checkpoint is damaged, or of another training.

    Example:
        >>> from vexplain.translation import NetworkSettings
        >>> translator = Translator(NetworkSettings(image_size=16, width=4, latent_size=6))
        >>> batch = {domain: jnp.full((2, 16, 16, 3), 0.5) for domain in ("a", "b")}
        >>> state = train_translator(translator, VAES, lambda t: batch, optax.adam(1e-3), num_steps=2)
        >>> int(state.step), sorted(state.losses)
        (2, ['kl', 'reconstruction'])
    """
    name = (translator, weights, identity(optimizer), seed)
    init, update = kept(
        _UPDATES, name, lambda: adversarial_training(translator, weights, optimizer, seed=seed)
    )
    start = translator.init(jax.random.key(seed)) if variables is None else variables
    return fold(
        update,
        init(start),
        batch_fn,
        num_steps=num_steps,
        mesh=mesh,
        checkpoint=checkpoint,
        description=description,
        report=translation_report,
    )


def first_state(
    variables: TranslatorVariables,
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
    names: Iterable[str],
) -> TranslationState:
    """Returns the state before the first step.

    Args:
        optimizers: of generator and discriminator.
        names: of the losses.
    """
    return TranslationState(variables, *_beginning(variables, optimizers, tuple(names)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _beginning(variables, optimizers, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Returns all of a state but its variables."""
    return (
        jax.tree.map(jnp.array, variables.generator),  # a copy: the step writes into its arguments
        (optimizers[0].init(variables.generator), optimizers[1].init(variables.discriminator)),
        jnp.zeros((), jnp.int32),
        {name: jnp.zeros(()) for name in names},
        no_divergence(list(names)),
    )


def next_state(
    state: TranslationState,
    variables: TranslatorVariables,
    opt_states: tuple[PyTree, PyTree],
    losses: dict[str, Array],
    average_decay: float,
) -> TranslationState:
    """Returns the state after a step; variables, averages and optimizers unchanged by a loss not finite.

    Args:
        state: before the step.
        variables: that the step found.
        opt_states: of generator and discriminator, likewise.
        losses: of the step, by name.
        average_decay: of the moving average is min(average_decay, (1 + step) / (10 + step)).
    """
    keep, divergence = guarded(state.divergence, losses, step=state.step)
    variables, opt_states = keep((variables, opt_states), (state.variables, state.opt_states))
    decay = jnp.minimum(average_decay, (1.0 + state.step) / (10.0 + state.step))
    average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, variables.generator)
    average = keep(average, state.average)
    averages = running_mean(losses, state.losses, step=state.step)
    return TranslationState(variables, average, opt_states, state.step + 1, averages, divergence)


def _generated(translator: Translator, weights: Weights, generator: PyTree, images, key: Key):
    """Returns images and latents that the losses look at, by name and by domain or direction."""
    keys = iter(jax.random.split(key, 6))
    encode, decode = (functools.partial(fn, generator) for fn in (translator.encode, translator.decode))

    def disturbed(images):
        return images + weights.cycle_noise * jax.random.normal(next(keys), images.shape, images.dtype)

    made: dict[str, dict[str, Any]] = {"latents": {d: encode(images[d], d) for d in DOMAINS}}
    drawn = {d: translator.sample(next(keys), *made["latents"][d]) for d in DOMAINS}
    if weights.reconstruction:
        made["reconstructions"] = {d: decode(drawn[d], d) for d in DOMAINS}
    if weights.translates:
        made["translations"] = {name: decode(drawn[s], t) for name, (s, t) in DIRECTIONS.items()}
    if weights.returns:
        seen = {n: disturbed(made["translations"][n]) for n in DIRECTIONS}
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

    Raises:
        TrainingDiverged: a loss of an earlier step was not finite; says which, and when.
    """
    raise_if_diverged(state.divergence)
    return dict(state.losses)


def _names(weights: Weights) -> list[str]:
    names = {name for name, weight in dataclasses.asdict(weights).items() if weight} - {"cycle_noise"}
    return sorted(names | {"discriminator"} if weights.gan else names - {"penalty"})


def _critic_loss(translator, weights: Weights, critic, images, made):
    score = functools.partial(translator.discriminate, critic)
    total, penalty = jnp.zeros(()), jnp.zeros(())
    for name, (_, target) in DIRECTIONS.items():
        fakes = jax.lax.stop_gradient(made["translations"][name])
        total += adversarial_loss(score(images[target], target), target=1).mean()
        total += adversarial_loss(score(fakes, target), target=0).mean()
    losses = {"discriminator": total}
    if weights.penalty:
        for domain in DOMAINS:
            score_fn = functools.partial(score, domain=domain)
            penalty += gradient_penalty(score_fn, images[domain][::_PENALIZED]).mean()
        losses["penalty"] = penalty
    return total + weights.penalty * penalty, losses


def _generator_loss(translator, weights: Weights, critic, images, made):
    def similar(distance_fn):
        return lambda n: distance_fn(images[n[0]], made["translations"][n])  # n[0]: the source of "ab" is "a"

    def adversarial(n):
        scores = translator.discriminate(critic, made["translations"][n], n[1])
        return adversarial_loss(scores, target=1)

    def agreement(n):
        return similarity.latent_distance(made["latents"][n[0]][0], made["returned latents"][n][0])

    losses: dict[str, tuple[Iterable[str], Callable[[str], Array]]] = {
        "reconstruction": (DOMAINS, lambda d: absolute_error(images[d], made["reconstructions"][d])),
        "kl": (DOMAINS, lambda d: kl_divergence(*made["latents"][d])),
        "gan": (DIRECTIONS, adversarial),
        "cycle": (DIRECTIONS, lambda n: absolute_error(images[n[0]], made["returns"][n])),
        "kl_cycle": (DIRECTIONS, lambda n: kl_divergence(*made["returned latents"][n])),
        "color": (DIRECTIONS, similar(similarity.color_distance)),
        "gram": (DIRECTIONS, similar(functools.partial(similarity.gram_distance, key=jax.random.key(0)))),
        "latent": (DIRECTIONS, agreement),
        "low_pass": (DIRECTIONS, similar(similarity.low_pass_distance)),
        "pose": (DIRECTIONS, similar(similarity.pose_distance)),
        "offset": (DIRECTIONS, similar(similarity.offset_distance)),
        "paired": (DIRECTIONS, lambda n: absolute_error(images[n[1]], made["translations"][n])),
        "identity": (DOMAINS, lambda d: absolute_error(images[d], made["identities"][d])),
    }
    terms = {
        name: jnp.stack([loss_fn(of).mean() for of in all_of]).sum()
        for name, (all_of, loss_fn) in losses.items()
        if getattr(weights, name)
    }
    return sum(getattr(weights, name) * term for name, term in terms.items()), terms
