"""Random networks with known truth: nothing is silently wrong; `make fuzz N=10000` runs many more."""

import pytest

from tests.transforms.check_network import check
from tests.transforms.random_networks import KINDS, Network, draw, forms, shrunk

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_silently_wrong(seed):
    network = draw(seed)
    wrong = [finding for finding in check(network) if finding.kind == "wrong"]
    assert not wrong, "\n".join(["", *map(str, wrong), str(network)])


def test_a_seed_draws_the_same_network():
    assert draw(7) == draw(7)
    assert str(draw(7)).splitlines()[0].startswith("v0 = images")


def test_every_kind_of_operation_is_drawn():
    drawn = {kind for seed in range(400) for kind in draw(seed).kinds}
    assert set(KINDS) - drawn == set()


def test_a_network_shrinks_to_what_fails():
    network = next(n for n in map(draw, range(100)) if len(n.ops) > 12 and "conv" in n.kinds)
    smallest = shrunk(network, lambda n: "conv" in n.kinds)
    assert smallest.kinds.count("conv") == 1
    assert len(smallest.ops) <= 3
    assert isinstance(smallest, Network)
    forms(smallest)
