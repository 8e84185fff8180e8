"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.factorization import Factorization as Factorization
from vexplain.concepts.factorization import nonnegative_factors as nonnegative_factors
from vexplain.concepts.factorization import nonnegative_least_squares as nonnegative_least_squares
from vexplain.concepts.factors import ConceptFactors as ConceptFactors
from vexplain.concepts.factors import concept_crops as concept_crops
from vexplain.concepts.factors import concept_factors as concept_factors
from vexplain.concepts.factors import concept_importance as concept_importance
from vexplain.concepts.factors import concept_maps as concept_maps
from vexplain.concepts.factors import concept_network as concept_network
from vexplain.concepts.sensitivity import ConceptScores as ConceptScores
from vexplain.concepts.sensitivity import concept_sensitivity as concept_sensitivity
from vexplain.concepts.sensitivity import tcav as tcav
from vexplain.concepts.sobol import total_sobol_indices as total_sobol_indices
from vexplain.concepts.vectors import ConceptVectors as ConceptVectors
from vexplain.concepts.vectors import concept_vectors as concept_vectors
