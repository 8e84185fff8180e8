"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.concept_relevance import ConceptRelevance as ConceptRelevance
from vexplain.concepts.concept_relevance import concept_maps as concept_maps
from vexplain.concepts.concept_relevance import concept_relevance as concept_relevance
