"""The only module that knows devices: one mesh with one axis, batches split along it, the rest copied.

`jit` over arrays laid out on such a mesh is what `pmap` became: the same program runs on a laptop, on eight
accelerators, or on several hosts, and numerics never name a device.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import Mesh as Mesh

from vexplain.typing import Batch, PyTree


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


@functools.lru_cache(maxsize=8)
def _copies(mesh: Mesh) -> Callable[..., PyTree]:
    """One jitted function for each mesh, so that trees of the same shapes compile nothing."""
    return jax.jit(lambda tree: jax.tree.map(lambda x: x.copy(), tree), out_shardings=replicated(mesh))
