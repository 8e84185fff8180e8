"""CPU seconds before the first result: finding layers, tracing and compiling, beside the plain network.

    python -m benchmarks.tracing                        ResNet-50, ViT-B/16, a scan of 100 blocks
    python -m benchmarks.tracing --networks scan_100

"trace" is JAX making the program, "layers" making it and finding its layers. "read" hands out the last map,
"guided" is the gradient by the images with GUIDED and RESAMPLED_STRIDE; both are traced by shapes, then
compiled. Nothing is computed. CPU time, so that other work on the machine counts little; compiling uses
several cores.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from flax import nnx

from vexplain._text import aligned
from vexplain.attribution import cam_layer
from vexplain.classifiers import ResNet, VisionTransformer, functionalize
from vexplain.transforms import GUIDED, RESAMPLED_STRIDE, layers, read, with_rules


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    networks: tuple[str, ...] = ("resnet_50", "vit_b_16", "scan_100")
    size: int = 224  # of the images
    batch_size: int = 8


def main(config: Config) -> None:
    """Prints the table."""
    header = ["network", "layers", "trace, s", "layers, s"]
    header += [
        f"{what}: {step}, s"
        for what in ("network", "read", "gradient", "guided")
        for step in ("trace", "compile")
    ]
    rows = [measured(name, config) for name in config.networks]
    print(aligned(header, rows))


def measured(name: str, config: Config) -> list[str]:
    """A row of the table."""
    apply, variables = NETWORKS[name](config.size)
    images = jax.ShapeDtypeStruct((config.batch_size, config.size, config.size, 3), jnp.float32)
    tracing = _seconds(lambda: jax.make_jaxpr(apply)(variables, images))[0]
    jax.clear_caches()
    finding, table = _seconds(lambda: layers(apply, variables, images))
    ruled = with_rules(apply, GUIDED | RESAMPLED_STRIDE, on_uncovered="gradient", on_unmatched="ignore")
    functions = [apply, read(apply, [cam_layer(table)]), _gradient(apply), _gradient(ruled)]
    figures = [figure for fn in functions for figure in _first_call(fn, variables, images)]
    return [name, str(len(table)), *(f"{figure:.2f}" for figure in (tracing, finding, *figures))]


def _first_call(fn: Callable[..., Any], variables: Any, images: Any) -> tuple[float, float]:
    jax.clear_caches()
    tracing, lowered = _seconds(lambda: jax.jit(fn).lower(variables, images))
    return tracing, _seconds(lowered.compile)[0]


def _gradient(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda variables, images: fn(variables, images)[:, 0].sum(), argnums=1)


def _seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = run()
    return time.process_time() - started, found


def _module(make: Callable[..., nnx.Module]) -> tuple[Any, Any]:
    """Its weights as shapes alone."""
    made = {}

    def variables():
        made["apply"], found = functionalize(make(rngs=nnx.Rngs(0)))
        return found

    shapes = jax.eval_shape(variables)
    return made["apply"], shapes


def _scan(num_blocks: int, width: int = 32) -> tuple[Any, Any]:
    """Residual blocks of two convolutions, one after the other in a `lax.scan`."""

    def convolved(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def block(x, kernels):
        return jax.nn.relu(x + convolved(jax.nn.relu(convolved(x, kernels[0])), kernels[1])), None

    def apply(variables, images):
        x = jax.nn.relu(convolved(images, variables["stem"]))
        x, _ = jax.lax.scan(block, x, variables["blocks"])
        return x.mean((1, 2)) @ variables["head"]

    shapes = {"stem": (3, 3, 3, width), "blocks": (num_blocks, 2, 3, 3, width, width), "head": (width, 10)}
    return apply, {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


NETWORKS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "resnet_50": lambda size: _module(ResNet),
    "vit_b_16": lambda size: _module(lambda rngs: VisionTransformer(image_size=size, rngs=rngs)),
    "scan_100": lambda size: _scan(100),
}


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.tracing"))
