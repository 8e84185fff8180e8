"""One axis of devices; batches that do not divide are refused."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.streaming.devices import (
    COPIED,
    SPLIT,
    best_precision,
    data_mesh,
    from_devices,
    laid_out,
    on_each_device,
    replicate,
    shard_batch,
)


def test_a_batch_is_split_and_a_tree_is_copied():
    mesh = data_mesh(4)
    batch = shard_batch({"x": np.arange(8.0), "y": np.ones((8, 2))}, mesh)
    assert [s.data.shape for s in batch["x"].addressable_shards] == [(2,)] * 4
    np.testing.assert_array_equal(batch["x"], np.arange(8.0))
    source = jnp.arange(3.0)
    copy = replicate({"a": source}, mesh)["a"]
    assert len(copy.addressable_shards) == 4
    copy.delete()
    np.testing.assert_array_equal(source, [0, 1, 2])


def test_all_devices_by_default():
    assert data_mesh().size == len(jax.devices()) == 8


@pytest.mark.parametrize("wanted", [0, 9])
def test_devices_that_do_not_exist(wanted):
    with pytest.raises(ValueError, match=rf"num_devices is {wanted}: this machine has 8"):
        data_mesh(wanted)


def test_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match=r"batch has 6 examples, which 4 devices.*multiple of 4"):
        shard_batch({"x": np.zeros(6)}, data_mesh(4))


def test_a_state_lies_on_the_devices_as_its_layouts_say():
    mesh, layouts = data_mesh(4), {"rows": SPLIT, "sum": COPIED}
    source = {"rows": jnp.arange(8.0).reshape(8, 1), "sum": jnp.ones(3)}
    state = laid_out(source, mesh, layouts)
    assert [shard.data.shape for shard in state["rows"].addressable_shards] == [(2, 1)] * 4
    assert [shard.data.shape for shard in state["sum"].addressable_shards] == [(3,)] * 4

    def update(state, device, gather):
        everything = gather(state["rows"])
        return {"rows": state["rows"] + device, "sum": state["sum"] + everything.sum()}

    found = jax.jit(on_each_device(update, mesh, layouts))(state)
    np.testing.assert_array_equal(from_devices(found["rows"])[:, 0], np.arange(8) + np.arange(8) // 2)
    np.testing.assert_array_equal(from_devices(found["sum"]), [29] * 3)
    for array in state.values():
        array.delete()
    np.testing.assert_array_equal(source["rows"][:, 0], np.arange(8))  # no alias
    with pytest.raises(ValueError, match=r"layouts: an array of shape \(6,\) cannot be split over 4 devices"):
        laid_out(jnp.ones(6), mesh, SPLIT)


@pytest.mark.parametrize(
    ("platform", "capability", "precision"),
    [
        ("cpu", None, "float64"),
        ("gpu", "9.0", "float64"),
        ("gpu", "8.9", "float32"),
        ("gpu", None, "float32"),
        ("tpu", None, "float32"),
    ],
)
def test_the_precision_is_one_that_the_devices_are_fast_at(platform, capability, precision, monkeypatch):
    facts = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform=platform, **facts)])
    assert best_precision() == precision
