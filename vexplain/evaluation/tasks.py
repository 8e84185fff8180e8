"""What methods are scored on: a trained network, its relevant features, and images whose truth is known."""

import dataclasses

from vexplain.datasets import Source
from vexplain.evaluation.explained_network import ExplainedNetwork
from vexplain.relevance import Relevance, learn_relevance
from vexplain.typing import ApplyFn, Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network and images with masks, of any kind; `with_part_effects` adds a second truth.

    Attributes:
        name: in tables.
        apply: the network, `apply(variables, images) -> logits`.
        variables: its weights.
        relevance: its relevant features.
        train: the images that these were found on.
        test: the images that are explained; batches have "masks" of the truth, and where it is known
            "part_effects".
        accuracy: of the network on the test images, where it was measured.
    """

    name: str
    apply: ApplyFn
    variables: Variables
    relevance: Relevance
    train: Source
    test: Source
    accuracy: float | None = None

    @property
    def network(self) -> ExplainedNetwork:
        return ExplainedNetwork(self.variables, self.relevance)

    def relearn(self, variables: Variables) -> Relevance:
        """The relevant features of a changed network, by what it predicts: no truth comes in."""
        return learn_relevance(
            self.apply,
            variables,
            self.train,
            layers=self.relevance.layers,
            mu=float(self.relevance.mu),
            measure=self.relevance.measure,
            on_empty_class="leave_out",
        )
