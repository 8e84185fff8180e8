"""The only module that knows devices: one mesh with one axis, batches split along it, the rest copied.

`jit` over arrays laid out on such a mesh is what `pmap` became: the same program runs on a laptop, on eight
accelerators, or on several hosts, and numerics never name a device. Where processes share the mesh, each
holds those rows of a batch that are on its devices.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import Mesh as Mesh

from vexplain.streaming.processes import wait_for_all
from vexplain.typing import Batch, PyTree

Layout = PartitionSpec
SPLIT = Layout("data")  # an array whose leading axis is split over the devices
COPIED = Layout()  # an array of which each device has a copy
_FAST_FLOAT64 = ("6.0", "7.0", "8.0", "9.0", "10.0")  # compute capabilities of NVIDIA's GPUs for data centers


def data_mesh(num_devices: int | None = None) -> Mesh:
    """Returns a mesh of devices with the single axis "data".

    Args:
        num_devices: how many to use, of all processes together and as many of each; all if left out.

    Raises:
        ValueError: there are fewer, or fewer than one is asked for, or the processes cannot share them.

    Example:
        >>> data_mesh(1).shape["data"]
        1
    """
    devices, num_processes = jax.devices(), jax.process_count()
    wanted = len(devices) if num_devices is None else num_devices
    if not 1 <= wanted <= len(devices):
        raise ValueError(
            f"num_devices is {num_devices}: this machine has {len(devices)} ({devices[0].platform}); on a "
            "CPU more can be simulated by XLA_FLAGS=--xla_force_host_platform_device_count=N"
        )
    chosen = devices
    if wanted < len(devices):
        by_process = collections.defaultdict(list)
        for device in devices:
            by_process[device.process_index].append(device)
        share = wanted // num_processes
        if wanted % num_processes or share > min(map(len, by_process.values())):
            raise ValueError(
                f"num_devices is {num_devices}: expected a multiple of the {num_processes} processes, each "
                f"of which has {min(map(len, by_process.values()))} or more"
            )
        chosen = [device for process in sorted(by_process) for device in by_process[process][:share]]
    return jax.make_mesh((wanted,), ("data",), axis_types=(AxisType.Auto,), devices=chosen)


def default_mesh() -> Mesh:
    """Returns what is used where no mesh is given: one device, or where there are several processes, one of
    each."""
    return data_mesh(jax.process_count())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the layout of arrays whose leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the layout of arrays of which each device has a copy."""
    return NamedSharding(mesh, PartitionSpec())


def shared_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Returns the rows of a batch that are on the devices of this process, in ascending order.

    Args:
        batch_size: rows of the whole batch.
        mesh: from `data_mesh`.

    Raises:
        ValueError: the batch does not divide evenly, or no device of the mesh belongs to this process.

    Example:
        >>> shared_rows(3, data_mesh(1))
        array([0, 1, 2])
    """
    if not mesh.local_devices:
        raise ValueError(
            f"mesh: none of its {mesh.size} devices belongs to process {jax.process_index()} of "
            f"{jax.process_count()}; data_mesh() takes as many of each"
        )
    if batch_size % mesh.size:
        raise ValueError(
            f"the batch has {batch_size} examples, which {mesh.size} devices cannot share evenly: choose a "
            f"batch size that is a multiple of {mesh.size}, or fewer devices"
        )
    places = np.arange(batch_size)
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([places[of_device[0]] for of_device in slices if of_device is not None]))


def shard_batch(batch: Batch, mesh: Mesh) -> dict[str, Any]:
    """Returns a batch split over the devices of a mesh along its leading axis.

    With several processes, each passes the whole batch, of which its devices keep their rows.

    Args:
        batch: arrays with a common leading axis.
        mesh: from `data_mesh`.

    Raises:
        ValueError: the batch does not divide evenly.
    """
    sizes = {name: array.shape[0] for name, array in batch.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"batch: expected arrays with one leading axis, got rows {sizes}")
    if not sizes:
        return {}
    size = next(iter(sizes.values()))
    rows = shared_rows(size, mesh)
    if mesh.is_multi_process:
        batch = {name: np.asarray(array)[rows] for name, array in batch.items()}
    return shard_rows(batch, rows, size, mesh)


def shard_rows(batch: Batch, rows: np.ndarray, batch_size: int, mesh: Mesh) -> dict[str, Any]:
    """Returns a whole batch on the devices of a mesh, of which each process passes its rows.

    Args:
        batch: arrays with a row for each of `rows`.
        rows: what `shared_rows` returned.
        batch_size: rows of the whole batch.
        mesh: from `data_mesh`.
    """
    layout = batch_sharding(mesh)
    if not mesh.is_multi_process:
        return {name: jax.device_put(array, layout) for name, array in batch.items()}

    def whole(array: np.ndarray) -> jax.Array:
        def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            return array[np.searchsorted(rows, np.arange(batch_size)[index[0]])]

        return jax.make_array_from_callback((batch_size, *array.shape[1:]), layout, of_device)

    return {name: whole(np.asarray(array)) for name, array in batch.items()}


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns a tree of arrays copied to every device of a mesh; never an alias of what was passed.

    With several processes, each passes the same values.
    """
    if not mesh.is_multi_process:
        return _copies(mesh)(tree)
    plain = jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf), tree)
    return jax.tree.map(
        lambda leaf, new: (
            jax.random.wrap_key_data(new, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else new
        ),
        tree,
        _copies(mesh)(plain),
    )


def local_copies(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns a tree of arrays that this process can read and compute with on its own.

    What is split over the processes is brought together.

    Args:
        tree: arrays on the devices of `mesh`.
        mesh: from `data_mesh`.
    """
    if not mesh.is_multi_process:
        return tree
    whole = jax.tree.map(lambda leaf: leaf if leaf.is_fully_replicated else _copies(mesh)(leaf), tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)


def meet(mesh: Mesh) -> None:
    """Connects the processes of a mesh, all of which must call it, however late one of them is.

    On CPUs a connection is given up after 30 seconds, which the first step of a fold may take to compile.

    Args:
        mesh: from `data_mesh`.
    """
    if not mesh.is_multi_process:
        return
    wait_for_all()
    ones = shard_batch({"ones": np.ones(mesh.size, np.float32)}, mesh)["ones"]
    jax.block_until_ready(_total(mesh)(ones))


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


@functools.lru_cache(maxsize=8)
def _total(mesh: Mesh) -> Callable[..., jax.Array]:
    return jax.jit(lambda numbers: numbers.sum(), out_shardings=replicated(mesh))


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

    That is float64 on CPUs and on the GPUs of data centers (P100, V100, A100, H100, H200, B200), which
    multiply float64 at half the speed of float32 or more; other GPUs take 32 or 64 times as long, and TPUs
    have no float64.

    Args:
        mesh: the devices; those of this machine without one.
    """
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    is_fast = device.platform == "cpu" or getattr(device, "compute_capability", None) in _FAST_FLOAT64
    return "float64" if is_fast else "float32"


def from_devices(array: Any) -> np.ndarray:
    """Returns an array on the host, whichever devices and processes have its parts; all processes call it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@functools.lru_cache(maxsize=8)
def _copies(mesh: Mesh) -> Callable[..., PyTree]:
    """One jitted function for each mesh, so that trees of the same shapes compile nothing."""
    return jax.jit(lambda tree: jax.tree.map(lambda x: x.copy(), tree), out_shardings=replicated(mesh))
