"""Networks whose weights are shuffled, layer after layer: what a map of the network must not survive.

A leaf of the variables is permuted, so that it keeps its values, their mean and their standard deviation, and
loses only what was learned. The leaves of one layer (kernel and bias) form a group and are shuffled together.
Cascading randomization destroys more and more groups, from the output down; independent randomization
destroys one at a time.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.transforms import layers, read
from vexplain.typing import ApplyFn, Array, Images, Key, Variables

MODES = ("cascading", "independent")
DRAWS = ("permutation", "normal")


def parameter_groups(variables: Variables) -> tuple[str, ...]:
    """Returns the names of the groups of leaves that belong to one layer, in the order of the variables.

    A group is what has the same path but for the last step: `"stem"` holds `stem/kernel` and `stem/bias`. An
    array at the top is a group of its own. Only leaves of floating point count.

    Example:
        >>> stem = {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}
        >>> parameter_groups({"stem": stem, "scale": jnp.ones(1)})
        ('scale', 'stem')
    """
    return tuple(dict.fromkeys(group for group, _ in _named_leaves(variables) if group is not None))


def parameter_groups_from_output(apply: ApplyFn, variables: Variables, images: Images) -> tuple[str, ...]:
    """Returns the groups of `parameter_groups` in the order of the network, the one nearest the output first.

    A group is as deep as the first layer whose activation depends on it. That is found by trial, one forward
    pass a group: with NaN for its leaves, the layers that turn NaN are those that it reaches.

    Groups that enter at the same layer (two branches of a sum) keep the order of the variables, reversed;
    those that reach no layer come first. One image is enough.

    Example:
        >>> def apply(variables, images):
        ...     return jax.nn.relu(images.mean((1, 2)) @ variables["b"]) @ variables["a"]
        >>> variables = {"a": jnp.ones((4, 2)), "b": jnp.ones((3, 4))}
        >>> parameter_groups_from_output(apply, variables, jnp.ones((1, 5, 5, 3)))
        ('a', 'b')
    """
    images = jnp.asarray(images)
    table = layers(apply, variables, images)
    names = [layer.name for layer in table if not layer.inside]
    groups = parameter_groups(variables)

    def reached(chosen, variables, images):
        leaves = [
            leaf if group is None else jnp.where(chosen == groups.index(group), jnp.nan, leaf)
            for group, leaf in _named_leaves(variables)
        ]
        spoiled = jax.tree.unflatten(jax.tree.structure(variables), leaves)
        logits, found = read(apply, names)(spoiled, images)
        return jnp.stack([jnp.isnan(value).any() for value in (*(found[name] for name in names), logits)])

    @jax.jit
    def reached_by_each(variables, images):
        return jax.lax.map(lambda n: reached(n, variables, images), jnp.arange(len(groups)))

    hits = reached_by_each(variables, images)
    depths = [int(row.argmax()) if row.any() else len(row) for row in jax.device_get(hits)]
    return tuple(groups[n] for n in sorted(range(len(groups)), key=lambda n: (-depths[n], -n)))


def randomized_variables(
    key: Key,
    variables: Variables,
    *,
    groups: Sequence[str] | None = None,
    draw: Literal["permutation", "normal"] = "permutation",
) -> Variables:
    """Returns the variables with the leaves of some groups shuffled.

    The same key shuffles a group in the same way whatever other groups are shuffled.

    Args:
        groups: names from `parameter_groups`; all of them by default.
        draw: "permutation" puts the values of a leaf into random order: a leaf whose values are all equal (a
            new bias) stays. "normal" draws new ones from a normal distribution with the mean and standard
            deviation of the leaf; leaves without a negative value (a variance, a scale) are permuted here
            too, since they may have to be positive. Leaves of integers stay.

    References:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, Section 4; there, weights are
        initialized again, which takes the code that made the network.

    Example:
        >>> variables = {"dense": {"kernel": jnp.arange(6.0)}, "head": {"kernel": jnp.arange(3.0)}}
        >>> found = randomized_variables(jax.random.key(0), variables, groups=["dense"])
        >>> print(found["dense"]["kernel"].sum(), found["head"]["kernel"])
        15.0 [0. 1. 2.]
    """
    known = parameter_groups(variables)
    chosen = _checked_groups(known if groups is None else groups, known)
    check_choice("draw", draw, DRAWS)
    leaves = [
        _drawn(jax.random.fold_in(key, n), leaf, draw) if group in chosen else leaf
        for n, (group, leaf) in enumerate(_named_leaves(variables))
    ]
    return jax.tree.unflatten(jax.tree.structure(variables), leaves)


def _drawn(key: Any, leaf: Any, draw: str) -> Array:
    leaf = jnp.asarray(leaf)
    permuted = jax.random.permutation(key, leaf.ravel()).reshape(leaf.shape)
    if draw == "permutation" or not leaf.size:
        return permuted
    drawn = leaf.mean() + leaf.std() * jax.random.normal(key, leaf.shape, leaf.dtype)
    return jnp.where((leaf < 0).any(), drawn, permuted)


def _checked_groups(groups: Sequence[str], known: tuple[str, ...]) -> set[str]:
    names = [groups] if isinstance(groups, str) else groups
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(f"groups: the variables have no {unknown[0]!r}: expected some of {list(known)}")
    return set(names)


def _named_leaves(variables: Variables) -> list[tuple[str | None, Any]]:
    """Returns each leaf with the name of its group; None for what is no array of floating point."""
    found = []
    for path, leaf in jax.tree.leaves_with_path(variables):
        is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        in_variable = path[1:] and path[-1] == jax.tree_util.GetAttrKey("value")  # NNX wraps every array
        parts = [jax.tree_util.keystr((step,), simple=True) for step in (path[:-1] if in_variable else path)]
        found.append(("/".join(parts[: max(len(parts) - 1, 1)]) if is_float else None, leaf))
    return found
