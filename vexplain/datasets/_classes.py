"""Classes of a labeled set chosen by name: which are kept, in what order, and what they are called."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Classes = Iterable[str] | Mapping[str, str]


def chosen_classes(classes: Classes, known: Sequence[str], *, owner: str) -> dict[str, str]:
    """Returns the chosen classes in the order of their new labels, each with its new name.

    Raises:
        ValueError: an unknown class, of which the message says what `owner` lacks; one twice, or none.
    """
    given = list(classes)
    if absent := [name for name in given if name not in known]:
        example = f"; expected names such as {known[0]!r}" if known else ""
        raise ValueError(f"classes: {owner} {', '.join(absent)}{example}")
    if len(set(given)) < len(given) or not given:
        raise ValueError(f"classes are {', '.join(given) or 'none'}: expected at least one, and each once")
    return {name: classes[name] if isinstance(classes, Mapping) else name for name in given}


def examples_of_classes(
    labels: np.ndarray, known: Sequence[str], chosen: Iterable[str], *, owner: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the examples of the chosen classes, and the new label of each.

    Args:
        labels: indices of `known`, one an example.
        known: all names.
        chosen: some of them, in the order of their new labels.
        owner: of the examples, in the message about a class without an example, a ValueError.
    """
    chosen = tuple(chosen)
    new_labels = np.full(len(known), -1)
    new_labels[[known.index(name) for name in chosen]] = np.arange(len(chosen))
    indices = np.flatnonzero(new_labels[labels] >= 0)
    found = new_labels[labels[indices]]
    counts = np.bincount(found, minlength=len(chosen))
    if absent := [name for name, count in zip(chosen, counts, strict=True) if not count]:
        raise ValueError(f"classes: {owner} no image of {', '.join(absent)}")
    return indices, found
