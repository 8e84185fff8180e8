"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.concept_relevance import ChannelRelevance as ChannelRelevance
from vexplain.concepts.concept_relevance import channel_relevance as channel_relevance
from vexplain.concepts.concept_relevance import conditional_maps as conditional_maps
