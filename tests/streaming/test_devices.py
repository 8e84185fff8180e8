"""One axis of devices; batches that do not divide are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.streaming.devices import data_mesh, replicate, shard_batch


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
