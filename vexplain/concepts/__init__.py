"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.autoencoder_training import AutoencoderState as AutoencoderState
from vexplain.concepts.autoencoder_training import Reconstruction as Reconstruction
from vexplain.concepts.autoencoder_training import autoencoding as autoencoding
from vexplain.concepts.autoencoder_training import learn_autoencoder as learn_autoencoder
from vexplain.concepts.autoencoder_training import reconstruction as reconstruction
from vexplain.concepts.code_layer import with_codes as with_codes
from vexplain.concepts.concept_relevance import ChannelRelevance as ChannelRelevance
from vexplain.concepts.concept_relevance import channel_relevance as channel_relevance
from vexplain.concepts.concept_relevance import conditional_maps as conditional_maps
from vexplain.concepts.dissection import Detector as Detector
from vexplain.concepts.dissection import Dissection as Dissection
from vexplain.concepts.dissection import activation_counts as activation_counts
from vexplain.concepts.dissection import detectors as detectors
from vexplain.concepts.dissection import dissect as dissect
from vexplain.concepts.dissection import overlap_counts as overlap_counts
from vexplain.concepts.sparse_autoencoder import SparseAutoencoder as SparseAutoencoder
from vexplain.concepts.sparse_autoencoder import decode as decode
from vexplain.concepts.sparse_autoencoder import encode as encode
