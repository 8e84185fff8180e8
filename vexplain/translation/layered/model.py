"""Appearance-preserving translation as pure functions: one network for both domains.

codes = encode(x),   translation = composite(texture(codes), shape(codes, other domain), background(x))
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain._checks import check_choice, check_images
from vexplain.translation.layered.compositing import composite, estimated_coverage, filled_background
from vexplain.translation.layered.networks import Codes, Discriminator, Generator, LayeredSettings
from vexplain.translation.layered.scenes import Fitted, Scene, moved
from vexplain.translation.model import DIRECTIONS, TranslatorVariables, drawn, graph_of
from vexplain.translation.networks import DOMAINS
from vexplain.typing import Array, Float, Images, Key, Masks, Variables


class Layers(NamedTuple):
    """An image in layers.

    Attributes:
        texture: (batch, height, width, 3) in [0, 1], the object's colors, on the whole plane.
        coverage: (batch, height, width) in [0, 1], where the object is.
        background: (batch, height, width, 3) in [0, 1].
    """

    texture: Images
    coverage: Masks
    background: Images

    @property
    def image(self) -> Images:
        """The three of them as one image."""
        return composite(self.texture, self.coverage, self.background)


@dataclasses.dataclass(frozen=True)
class LayeredTranslator:
    """The pure functions of a translation in layers; parameters are their first argument, never held here.

    Wherever a function takes `domains` it is the domain of all images ("a" or "b") or, to mix both in a
    batch, one-hot vectors (batch, 2).

    References:
        Wang, Ma, Oramas, Van Gool, Tuytelaars, An Unpaired Shape Transforming Method for Image Translation
        and Cross-Domain Retrieval, 2018: one model, an appearance code that also retrieves, and the kinds of
        losses (*reconstructed*); the layers and what carries the texture are *ours*.

    Example:
        >>> translator = LayeredTranslator(LayeredSettings(image_size=16, width=4, appearance_size=8))
        >>> variables = translator.init(jax.random.key(0))
        >>> images = jnp.full((2, 16, 16, 3), 0.9).at[:, 4:12, 6:10].set(0.2)
        >>> translator.translate(variables.generator, images, direction="ab").shape
        (2, 16, 16, 3)
        >>> translator.appearance(variables.generator, images).shape
        (2, 8)
    """

    settings: LayeredSettings

    def init(self, key: Key) -> TranslatorVariables:
        """Returns the variables of generator and discriminator."""
        return _init(self.settings, key)

    def encode(self, generator: Variables, images: Images, coverage: Masks | None = None) -> Codes:
        """Returns appearance code, shape code and maps.

        Args:
            generator: parameters, for instance `TranslationState.average`.
            coverage: of the objects; if left out that of `estimated_coverage`, for plain backgrounds.
        """
        coverage = estimated_coverage(images) if coverage is None else coverage
        return self._generator(generator).encoder(jnp.asarray(images), coverage)

    def coordinates(
        self, generator: Variables, codes: Codes, domains: str | Array
    ) -> Float[Array, "batch height width 2"]:
        """Returns the coordinates of each pixel in the frame of the object, which both domains share.

        Args:
            domains: of the images that the codes are of.
        """
        return self._generator(generator).shapes.coordinates(codes, _one_hot(domains, len(codes.shape)))

    def coverage(self, generator: Variables, codes: Codes, places: Array, domains: str | Array) -> Masks:
        """Returns what the object would cover in the shape of a domain.

        Args:
            places: from `coordinates`.
            domains: whose shape is drawn.
        """
        return self._generator(generator).shapes(codes, places, _one_hot(domains, len(codes.shape)))

    def texture(self, generator: Variables, codes: Codes, places: Array) -> Images:
        """Returns the object's colors on the whole plane, in [0, 1]."""
        return self._generator(generator).textures(codes, places)

    def discriminate(
        self,
        discriminator: Variables,
        images: Images,
        domains: str | Array,
        coverage: Masks | None = None,
    ) -> Float[Array, " batch"]:
        """Returns one score an image: near 1 for what looks like an image of the domain, near 0 otherwise.

        Args:
            coverage: of the objects, which the critic sees too; as in `encode`.
        """
        coverage = estimated_coverage(images) if coverage is None else coverage
        graph, rest = graph_of(Discriminator, self.settings)
        critic = nnx.merge(graph, discriminator, rest, copy=True)
        return critic(images, coverage, _one_hot(domains, len(images)))

    def fitted(self, generator: Variables, scene: Scene | None, count: int) -> Fitted:
        """Returns in what shape `count` objects belong in a scene of B, or without one among the products."""
        module = self._generator(generator)
        return module.display(count, self.settings.image_size) if scene is None else module.fitted(scene)

    def placed(
        self,
        generator: Variables,
        codes: Codes,
        texture: Images,
        places: Array,
        to: Fitted,
        domains: str | Array,
    ) -> Layers:
        """Returns a texture where it belongs: moved there and cut out in the shape of a domain.

        Args:
            codes: of the images that the texture is of.
            texture: from `texture`, as it lies in these images.
            places: from `coordinates`, of these images.
            to: from `fitted`.
            domains: whose shape is drawn.
        """
        codes = codes._replace(shape=to.shape)
        new_places = self.coordinates(generator, codes, domains)
        coverage = self.coverage(generator, codes, new_places, domains)
        return Layers(moved(texture, places, new_places), coverage, to.background)

    def layers(
        self,
        generator: Variables,
        images: Images,
        *,
        source: str,
        target: str,
        coverage: Masks | None = None,
        scene: Scene | None = None,
    ) -> Layers:
        """Returns texture, coverage and background of images of one domain, drawn in the shape of another.

        Args:
            source: "a" or "b", the domain of the images.
            target: of the shape; the source for a reconstruction.
            coverage: (batch, height, width) in [0, 1], of the objects in the images; if left out that of
                `estimated_coverage`, for plain backgrounds.
            scene: for each image what it is to be put into, from A to B of networks with `has_scenes` only.

        Raises:
            ValueError: an unknown domain; images of another rank, range or size; coverage or a scene that
                does not belong to them; a scene that is missing, or that is not asked for.
        """
        for name, domain in (("source", source), ("target", target)):
            check_choice(name, domain, DOMAINS)
        self._check(images)
        needed = self.settings.has_scenes and (source, target) == ("a", "b")
        if needed != (scene is not None):
            raise ValueError(
                f"scene is {'missing' if needed else 'given'}: expected "
                + (
                    "a Scene for each image, which a product is put into (has_scenes=True)"
                    if needed
                    else f"None from {source} to {target} with has_scenes={self.settings.has_scenes}"
                )
            )
        parts = {"coverage": coverage}
        if scene is not None:
            self._check(scene.images, "scene.images", len(images))
            parts["scene.holes"] = scene.holes
        for name, masks in parts.items():
            if masks is not None and masks.shape != images.shape[:3]:
                raise ValueError(f"{name} has shape {masks.shape}: expected {images.shape[:3]}")
        return _layers(self, generator, jnp.asarray(images), source, target, coverage, scene)

    def translate(
        self,
        generator: Variables,
        images: Images,
        *,
        direction: str,
        coverage: Masks | None = None,
        scene: Scene | None = None,
    ) -> Images:
        """Returns images of the other domain; `direction` is "ab" or "ba", all else as in `layers`."""
        check_choice("direction", direction, DIRECTIONS)
        source, target = DIRECTIONS[direction]
        found = self.layers(generator, images, source=source, target=target, coverage=coverage, scene=scene)
        return found.image

    def reconstruct(
        self, generator: Variables, images: Images, *, domain: str, coverage: Masks | None = None
    ) -> Images:
        """Returns images of the same domain."""
        return self.layers(generator, images, source=domain, target=domain, coverage=coverage).image

    def appearance(
        self, generator: Variables, images: Images, coverage: Masks | None = None
    ) -> Float[Array, "batch numbers"]:
        """Returns appearance codes, of unit length: their products rank images of either domain."""
        self._check(images)
        return _appearance(self, generator, jnp.asarray(images), coverage)

    def _check(self, images: Images, name: str = "images", count: int | None = None) -> None:
        check_images(images)
        size = self.settings.image_size
        if images.shape[1:] != (size, size, 3) or count not in (None, len(images)):
            expected = f"({'batch' if count is None else count}, {size}, {size}, 3)"
            raise ValueError(f"{name} has shape {images.shape}: expected {expected}")

    def _generator(self, variables: Variables) -> Generator:
        graph, rest = graph_of(Generator, self.settings)
        return nnx.merge(graph, variables, rest, copy=True)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _layers(
    translator: LayeredTranslator, generator, images, source: str, target: str, coverage, scene
) -> Layers:
    codes = translator.encode(generator, images, coverage)
    places = translator.coordinates(generator, codes, source)
    texture = translator.texture(generator, codes, places)
    background = filled_background(images, codes.pixels[..., 3])
    if translator.settings.has_scenes and source != target:
        to = translator.fitted(generator, scene, len(images))
        return translator.placed(generator, codes, texture, places, to, target)
    return Layers(texture, translator.coverage(generator, codes, places, target), background)


@functools.partial(jax.jit, static_argnums=0)
def _appearance(translator: LayeredTranslator, generator, images, coverage):
    return translator.encode(generator, images, coverage).appearance


@functools.partial(jax.jit, static_argnums=0)
def _init(settings: LayeredSettings, key: Key) -> TranslatorVariables:
    return drawn((Generator, Discriminator), settings, key)


def _one_hot(domains: str | Array, count: int) -> Float[Array, "batch 2"]:
    if isinstance(domains, str):
        check_choice("domains", domains, DOMAINS)
        return jnp.broadcast_to(jax.nn.one_hot(DOMAINS.index(domains), 2), (count, 2))
    return domains
