"""The layers of a model: the table that is shown and written, and which of them are searched for features."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from vexplain import relevance
from vexplain._files import write_json, write_whole
from vexplain.command.arguments import Layers, Say
from vexplain.command.model import Model, load_model
from vexplain.streaming import is_writer
from vexplain.transforms import LayerTable, layers


def show_layers(arguments: Layers, say: Say) -> None:
    """Shows the table of layers, and writes it where a folder is given."""
    model = load_model(arguments.model, arguments.weights, arguments.size)
    table = table_of(model)
    say(str(table))
    say(size_of_search(table, relevance.default_layers(table)))
    if arguments.out is not None and is_writer():
        write_layers(arguments.out, table)


def table_of(model: Model) -> LayerTable:
    """Returns the table of layers of a model, traced with a batch of two."""
    size = model.resizing.size
    return layers(model.apply, model.variables, jax.ShapeDtypeStruct((2, size, size, 3), np.float32))


def searched(table: LayerTable, names: tuple[str, ...]) -> list[Any]:
    """Returns the layers that are named, or those that are searched by default."""
    try:
        return [table[name] for name in names] or list(relevance.default_layers(table))
    except KeyError as error:
        raise ValueError(f"--layers: {error.args[0]}") from error


def size_of_search(table: LayerTable, rows: Any) -> str:
    """Returns a sentence on the features that are searched and the memory that they take."""
    count = sum(row.num_channels for row in rows)
    every = relevance.candidate_layers(table)
    scope = "all layers" if len(rows) == len(every) else f"{len(rows)} of {len(every)} layers"
    size = relevance.gram_bytes(rows)
    large = f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
    return (
        f"The search is among {count:,} features of {scope}: a Gram matrix of {large}, and about four "
        "times as much memory for the pass"
    )


def write_layers(out: Path, table: LayerTable) -> None:
    """Writes the table as text and as JSON."""
    write_whole(out / "layers.txt", f"{table}\n".encode())
    rows = [
        {
            "name": row.name,
            "kind": row.kind,
            "shape": [n for axis, n in enumerate(row.shape) if axis != row.batch_axis],
            "channels": row.num_channels,
            "receptive_field": list(row.receptive_field),
            "sees_whole_image": row.sees_whole_image,
        }
        for row in table
    ]
    write_json(out / "layers.json", rows)
