"""One of two processes: python -m vexplain.command.hosts tests.streaming.one_of_two FOLDER."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tests.streaming import passes
from vexplain.__main__ import main as command
from vexplain.streaming import (
    Checkpoint,
    CheckpointError,
    data_mesh,
    fold,
    gather_values,
    is_writer,
    processes,
)


def main(folder: Path) -> None:
    process = jax.process_index()
    assert len(jax.devices()) == 4
    assert is_writer() == (process == 0)
    assert gather_values(f"{process}" * (process + 1)) == ["0", "11"]
    processes._PIECE = 64  # bytes; a large value is gathered piece by piece
    assert [len(value) for value in gather_values("x" * (500 * process))] == [0, 500]
    processes._PIECE = 2**26
    found = passes.results(folder, data_mesh())
    found |= {"devices": [device.process_index for device in data_mesh(2).devices]}
    found |= resumed(folder)
    found |= {"errors": np.array(errors(process))}
    found |= {"written": np.array(written_by_the_command(folder))}
    np.savez(folder / f"{process}.npz", **{name: np.asarray(values) for name, values in found.items()})


def resumed(folder: Path):
    """A pass that ends after the second step, and one that goes on from there."""
    checkpoint = Checkpoint(folder / "checkpoints", every=2)
    update = lambda state, batch: (state[0] + batch["x"].sum(0), jax.random.split(state[1])[0])  # noqa: E731
    batch_fn = lambda t: {"x": np.arange(8.0) * (t + 1)}  # noqa: E731
    start, asked = (jnp.zeros(()), jax.random.key(3)), []
    fold(update, start, batch_fn, num_steps=2, mesh=data_mesh(), checkpoint=checkpoint)
    noting = lambda t: asked.append(t) or batch_fn(t)  # noqa: E731
    total, key = fold(update, start, noting, num_steps=5, mesh=data_mesh(), checkpoint=checkpoint)
    left = sorted(path.name for path in checkpoint.directory.iterdir())
    gather_values(None)  # both have looked
    checkpoint.remove()
    data = jax.random.key_data(key)
    return {
        "total": total,
        "key": data,
        "asked": asked,
        "left": left,
        "is removed": not checkpoint.directory.exists(),
    }


def written_by_the_command(folder: Path) -> list[str]:
    """What this process writes of the results of `vexplain explain`."""
    out, written, replace = folder / "of two", [], os.replace

    def noting(source, destination):
        written.append(Path(destination).relative_to(out).as_posix())
        replace(source, destination)

    os.replace = noting
    assert command(passes.command_line(folder, out)) == 0
    os.replace = replace
    return sorted(written)


def errors(process: int) -> list[str]:
    add = lambda state, batch: state + batch["x"].sum()  # noqa: E731
    ones = lambda size: {"x": np.ones(size)}  # noqa: E731
    others = Mesh(np.array([d for d in jax.devices() if d.process_index != process]), ("data",))
    attempts = (
        lambda: data_mesh(3),
        lambda: fold(add, jnp.zeros(()), lambda t: ones(8), num_steps=1, mesh=others),
        lambda: fold(add, jnp.zeros(()), lambda t: ones(6), num_steps=1, mesh=data_mesh()),
    )
    said = []
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, CheckpointError) as error:
            said.append(str(error))
    return said


if __name__ == "__main__":
    main(Path(sys.argv[1]))
