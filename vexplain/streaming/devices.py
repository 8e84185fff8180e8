"""The only module that knows devices: one mesh with one axis, batches split along it, the rest copied.

`jit` over arrays laid out on such a mesh is what `pmap` became: the same program runs on a laptop, on eight
accelerators, or on several hosts, and numerics never name a device.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import Mesh as Mesh

from vexplain.typing import Batch, PyTree

Layout = PartitionSpec
SPLIT = Layout("data")  # an array whose leading axis is split over the devices
COPIED = Layout()  # an array of which each device has a copy


def data_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh of devices with the single axis "data".

    Args:
        num_devices: how many to use; all if left out.

    Raises:
        ValueError: there are fewer, or fewer than one is asked for.

    Example:
        >>> data_mesh(1).shape["data"]
        1
    """
    devices = jax.devices()
    wanted = len(devices) if num_devices is None else num_devices
    if not 1 <= wanted <= len(devices):
        raise ValueError(
            f"num_devices is {num_devices}: this machine has {len(devices)} ({devices[0].platform}); on a "
            "CPU more can be simulated by XLA_FLAGS=--xla_force_host_platform_device_count=N"
        )
    return jax.make_mesh((wanted,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:wanted])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the layout of arrays whose leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the layout of arrays of which each device has a copy."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Batch, mesh: Mesh) -> dict[str, Any]:
    """Returns a batch split over the devices of a mesh along its leading axis.

    With several processes, each passes its own part of the batch.

    Args:
        batch: arrays with a common leading axis.
        mesh: from `data_mesh`.

    Raises:
        ValueError: the batch does not divide evenly.
    """
    num_local = len(mesh.local_devices)
    for name, array in batch.items():
        if array.shape[0] % num_local:
            raise ValueError(
                f"batch[{name!r}] has {array.shape[0]} examples, which {num_local} devices cannot share "
                f"evenly: choose a batch size that is a multiple of {num_local}, or fewer devices"
            )
    layout = batch_sharding(mesh)
    if jax.process_count() == 1:
        return {name: jax.device_put(array, layout) for name, array in batch.items()}
    return {
        name: jax.make_array_from_process_local_data(layout, np.asarray(array))
        for name, array in batch.items()
    }


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns a tree of arrays copied to every device of a mesh; never an alias of what was passed."""
    return _copies(mesh)(jax.tree.map(np.asarray, tree) if jax.process_count() > 1 else tree)


def laid_out(tree: PyTree, mesh: Mesh, layouts: PyTree | None) -> PyTree:
    """Returns a tree of arrays on the devices of a mesh; never an alias of what was passed.

    Args:
        tree: of arrays.
        mesh: from `data_mesh`.
        layouts: `SPLIT` or `COPIED` for each array of the tree; None where every device has a copy of all. A
            split array goes from the host to the devices part by part, so that no device holds all of it.

    Raises:
        ValueError: a leading axis does not divide evenly.
    """
    if layouts is None:
        return replicate(tree, mesh)

    def place(layout: Layout, array: Any) -> Any:
        if layout == COPIED:
            return replicate(array, mesh)
        if array.shape[0] % mesh.size:
            raise ValueError(
                f"layouts: an array of shape {array.shape} cannot be split over {mesh.size} devices: its "
                f"leading axis must be a multiple of {mesh.size}"
            )
        host = np.asarray(array)
        return jax.make_array_from_callback(
            host.shape, NamedSharding(mesh, layout), lambda index: np.array(host[index])
        )

    return jax.tree.map(place, layouts, tree)


def shardings(mesh: Mesh, layouts: PyTree | None) -> PyTree:
    """Returns what `jax.jit` takes as `out_shardings`, for layouts as `laid_out` takes them."""
    if layouts is None:
        return replicated(mesh)
    return jax.tree.map(lambda layout: NamedSharding(mesh, layout), layouts)


def on_each_device(
    fn: Callable[..., PyTree], mesh: Mesh | None, layouts: PyTree
) -> Callable[[PyTree], PyTree]:
    """Returns `tree -> tree` that runs `fn(part of the tree, device, gather)` on every device.

    Args:
        fn: is given the number of the device, and `gather(array)`, which joins the parts that the devices
            have of an array along its leading axis.
        mesh: the devices; without one `fn` has the whole tree.
        layouts: of the tree, which are those of the result.
    """
    if mesh is None or mesh.size == 1:
        return lambda tree: fn(tree, 0, lambda array: array)

    def on_one(tree: PyTree) -> PyTree:
        gather = functools.partial(jax.lax.all_gather, axis_name="data", tiled=True)
        return fn(tree, jax.lax.axis_index("data"), gather)

    return jax.shard_map(on_one, mesh=mesh, in_specs=(layouts,), out_specs=layouts, check_vma=False)


def best_precision(mesh: Mesh | None = None) -> Literal["float32", "float64"]:
    """Returns the floating point that devices multiply with at their speed and with the most digits.

    Args:
        mesh: the devices; those of this machine without one.
    """
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    return "float64" if device.platform == "cpu" else "float32"


def from_devices(array: Any) -> np.ndarray:
    """Returns an array on the host, whichever devices and processes have its parts; all processes call it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@functools.lru_cache(maxsize=8)
def _copies(mesh: Mesh) -> Callable[..., PyTree]:
    """One jitted function for each mesh, so that trees of the same shapes compile nothing."""
    return jax.jit(lambda tree: jax.tree.map(lambda x: x.copy(), tree), out_shardings=replicated(mesh))
