"""The VAE-GAN pair as pure functions: encode, decode, discriminate, and what is made of them.

z = encode(x, d),      reconstruction = decode(z, d),      translation = decode(z, other domain)
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
from flax import nnx

from vexplain._checks import check_choice, check_images
from vexplain.translation.networks import DOMAINS, Discriminator, Generator, Latents, NetworkSettings
from vexplain.typing import Array, Float, Images, Key, PyTree, Variables

DIRECTIONS = {"ab": ("a", "b"), "ba": ("b", "a")}


@dataclasses.dataclass(frozen=True)
class Translator:
    """The pure functions of a pair of VAE-GANs; parameters are their first argument, never held here.

    Two translators of the same settings are equal, so that what was compiled for one serves the other.

    Example:
        >>> translator = Translator(NetworkSettings(image_size=16, width=4, latent_size=6))
        >>> variables = translator.init(jax.random.key(0))
        >>> images = jnp.full((2, 16, 16, 3), 0.5)
        >>> translator.translate(variables.generator, images, direction="ab").shape
        (2, 16, 16, 3)
    """

    settings: NetworkSettings

    def init(self, key: Key) -> "TranslatorVariables":
        """Returns the variables of generator and discriminator."""
        return _init(self.settings, key)

    def encode(self, generator: Variables, images: Images, domain: str) -> tuple[Latents, Latents]:
        """Returns mean and log-variance of the latent."""
        mean, log_variance = self._generator(generator).encode(self._cast(images), domain)
        return mean.astype(jnp.float32), log_variance.astype(jnp.float32)

    def sample(self, key: Key, mean: Array, log_variance: Array) -> Array:
        """Returns a latent drawn from its distribution; the mean where the settings want no noise."""
        if self.settings.variance == "none":
            return mean
        return mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)

    def decode(self, generator: Variables, latents: Array, domain: str) -> Float[Array, "batch h w c"]:
        """Returns images in [0, 1] of a domain."""
        return self._generator(generator).decode(self._cast(latents), domain).astype(jnp.float32)

    def discriminate(
        self, discriminator: Variables, images: Images, domain: str
    ) -> Float[Array, " batch *map"]:
        """Returns scores: near 1 for what looks like an image of the domain, near 0 otherwise."""
        graph, rest = graph_of(Discriminator, self.settings)
        critic = nnx.merge(graph, self._cast(discriminator), rest, copy=True)
        return critic(self._cast(images), domain).astype(jnp.float32)

    def translate(self, generator: Variables, images: Images, *, direction: str) -> Images:
        """Returns images of the other domain: the decoded mean of the latent.

        Args:
            generator: parameters, for instance `TranslationState.average`.
            direction: "ab" or "ba".

        Raises:
            ValueError: an unknown direction; images of another rank, range or size.
        """
        check_choice("direction", direction, DIRECTIONS)
        source, target = DIRECTIONS[direction]
        return self._decoded(generator, images, source, target)

    def reconstruct(self, generator: Variables, images: Images, *, domain: str) -> Images:
        """Returns images of the same domain: the decoded mean of the latent."""
        return self._decoded(generator, images, domain, domain)

    def interpolate(
        self, generator: Variables, first: Images, second: Images, *, domain: str, num_steps: int = 7
    ) -> Float[Array, "batch steps height width channels"]:
        """Returns the images on the line between the latents of two batches of a domain."""
        return _interpolated(self, generator, jnp.asarray(first), jnp.asarray(second), domain, num_steps)

    def _decoded(self, generator, images, source: str, target: str):
        check_choice("domain", source, DOMAINS)
        check_images(images)
        size = self.settings.image_size
        if images.shape[1:] != (size, size, 3):
            raise ValueError(f"images has shape {images.shape}: expected (batch, {size}, {size}, 3)")
        return _decoded(self, generator, jnp.asarray(images), source, target)

    def _generator(self, variables):
        graph, rest = graph_of(Generator, self.settings)
        return nnx.merge(graph, self._cast(variables), rest, copy=True)

    def _cast(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.asarray(x, self.settings.precision), tree)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TranslatorVariables:
    """Parameters as nested dicts of arrays."""

    generator: PyTree  # both VAEs
    discriminator: PyTree  # both critics


def num_parameters(variables: PyTree) -> int:
    """Returns how many numbers there are in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _decoded(translator: Translator, generator, images, source: str, target: str) -> Any:
    return translator.decode(generator, translator.encode(generator, images, source)[0], target)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _interpolated(translator: Translator, generator, first, second, domain: str, num_steps: int) -> Any:
    start, stop = (translator.encode(generator, x, domain)[0] for x in (first, second))
    shares = jnp.linspace(0, 1, num_steps)
    return jax.vmap(
        lambda share: translator.decode(generator, (1 - share) * start + share * stop, domain), out_axes=1
    )(shares)


@functools.partial(jax.jit, static_argnums=0)
def _init(settings: NetworkSettings, key: Key) -> TranslatorVariables:
    return drawn((Generator, Discriminator), settings, key)


def drawn(modules: tuple[Any, Any], settings: Any, key: Key) -> TranslatorVariables:
    """Returns the variables of generator and discriminator, each parameter its deviation times one draw.

    Args:
        modules: the two classes of modules, whose initializers are those of `blocks`.
        settings: that the modules take.
        key: of the draw.
    """
    built = (module(settings, rngs=nnx.Rngs(0)) for module in modules)
    scales = (nnx.to_pure_dict(nnx.split(module, nnx.Param, ...)[1]) for module in built)
    flat, unravel = jax.flatten_util.ravel_pytree(TranslatorVariables(*scales))
    return unravel(flat * jax.random.normal(key, flat.shape))


@functools.lru_cache(maxsize=64)
def graph_of(module: Any, settings: Any) -> tuple[Any, Any]:
    """Returns what is left of a module without its parameters."""
    shapes = nnx.eval_shape(lambda: module(settings, rngs=nnx.Rngs(0)))
    graph, _, rest = nnx.split(shapes, nnx.Param, ...)
    return graph, rest
