"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.sensitivity import ConceptScores as ConceptScores
from vexplain.concepts.sensitivity import concept_sensitivity as concept_sensitivity
from vexplain.concepts.sensitivity import tcav as tcav
from vexplain.concepts.vectors import ConceptVectors as ConceptVectors
from vexplain.concepts.vectors import concept_vectors as concept_vectors
