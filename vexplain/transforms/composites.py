"""Composites: which rule of LRP is for which layer of a network, by its kind and its place.

A composite is a `Rules`, as all rules that are joined. What it says nothing of, `lrp_composite` adds: an
activation function passes the relevance on, a normalization keeps its deviation constant, of a product with a
softmax or a sigmoid all goes to what these scale, and a linear layer without a rule has LRP-0.
"""

import functools

from vexplain.transforms.propagation import (
    LRP_DEVIATION,
    LRP_HALVES,
    LRP_SECANT,
    LRP_SIGNAL,
    lrp_alpha_beta,
    lrp_box,
    lrp_epsilon,
    lrp_flat,
    lrp_gamma,
    lrp_z_plus,
)
from vexplain.transforms.rule import Rule, Rules


def lrp_composite(rules: Rule | Rules) -> Rules:
    """Returns rules of LRP with those of a whole network: what no rule matches is given its customary one.

    Args:
        rules: one rule, or several joined by `|`, for instance
            `lrp_gamma(0.5).where(lambda layer: layer.kind == "conv") | lrp_epsilon().where(...)`.

    Example:
        >>> [rule.name for rule in lrp_composite(lrp_epsilon(0.0)).rules]
        ['lrp_epsilon(0)', 'LRP_SECANT', 'LRP_DEVIATION', 'LRP_SIGNAL']
    """
    chosen = Rules((rules,)) if isinstance(rules, Rule) else rules
    customary = [_unless_matched(rule, chosen) for rule in (LRP_SECANT, LRP_DEVIATION, LRP_SIGNAL)]
    return Rules((*chosen.rules, *(rule for rule in customary if rule.name not in _names(chosen))))


@functools.cache
def epsilon_plus_flat(epsilon: float = 1e-6) -> Rules:
    """Returns flat at the first linear layer, z⁺ at convolutions, epsilon at dense layers.

    Args:
        epsilon: of `lrp_epsilon`.

    References:
        Kohlbrenner et al., Towards Best Practice in Explaining Neural Network Decisions with LRP, 2020.
    """
    return _by_kind(lrp_z_plus(), epsilon, lrp_flat())


@functools.cache
def epsilon_gamma_box(
    gamma: float = 0.25, epsilon: float = 1e-6, low: float = 0.0, high: float = 1.0
) -> Rules:
    """Returns zB at the first linear layer, gamma at convolutions, epsilon at dense layers.

    Args:
        gamma: of `lrp_gamma`.
        epsilon: of `lrp_epsilon`.
        low: the least value of a pixel.
        high: the greatest one.

    References:
        Montavon et al., Layer-Wise Relevance Propagation: An Overview, 2019, Section 10.3.
    """
    return _by_kind(lrp_gamma(gamma), epsilon, lrp_box(low, high))


@functools.cache
def epsilon_alpha2_beta1(epsilon: float = 1e-6) -> Rules:
    """Returns alpha-beta (2, 1) at convolutions, epsilon at dense layers.

    Args:
        epsilon: of `lrp_epsilon`.
    """
    return _by_kind(lrp_alpha_beta(2.0, 1.0), epsilon)


@functools.cache
def epsilon_alpha2_beta1_flat(epsilon: float = 1e-6) -> Rules:
    """Returns flat at the first linear layer, alpha-beta (2, 1) at convolutions, epsilon at dense layers.

    Args:
        epsilon: of `lrp_epsilon`.
    """
    return _by_kind(lrp_alpha_beta(2.0, 1.0), epsilon, lrp_flat())


@functools.cache
def attention_lrp(epsilon: float = 1e-6) -> Rules:
    """Returns AttnLRP: epsilon at linear layers, half of a product to each factor, the softmax's gradient.

    Args:
        epsilon: of `lrp_epsilon`.

    References:
        Achtibat et al., AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers, ICML
        2024.
    """
    return lrp_epsilon(epsilon) | LRP_HALVES


@functools.cache
def conservative_lrp(epsilon: float = 1e-6) -> Rules:
    """Returns CP-LRP: epsilon at linear layers, and nothing through attention weights and gates.

    Args:
        epsilon: of `lrp_epsilon`.

    References:
        Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML 2022.
    """
    return lrp_epsilon(epsilon) | LRP_SIGNAL


def _by_kind(conv: Rule, epsilon: float, first: Rule | None = None) -> Rules:
    is_other = lambda layer: first is None or not layer.is_first  # noqa: E731
    return Rules(
        (
            *(() if first is None else (first,)),
            conv.where(lambda layer: layer.kind == "conv" and is_other(layer)),
            lrp_epsilon(epsilon).where(lambda layer: layer.kind == "dense" and is_other(layer)),
        )
    )


def _unless_matched(rule: Rule, chosen: Rules) -> Rule:
    matches = lambda layer, table: (  # noqa: E731
        rule.matches(layer, table) and not any(other.matches(layer, table) for other in chosen.rules)
    )
    return Rule(rule.name, matches, rule.backward, is_propagation=True)


def _names(rules: Rules) -> set[str]:
    return {rule.name for rule in rules.rules}
