"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.concept_relevance import ChannelRelevance as ChannelRelevance
from vexplain.concepts.concept_relevance import channel_relevance as channel_relevance
from vexplain.concepts.concept_relevance import conditional_maps as conditional_maps
from vexplain.concepts.dissection import Detector as Detector
from vexplain.concepts.dissection import Dissection as Dissection
from vexplain.concepts.dissection import activation_counts as activation_counts
from vexplain.concepts.dissection import detectors as detectors
from vexplain.concepts.dissection import dissect as dissect
from vexplain.concepts.dissection import overlap_counts as overlap_counts
