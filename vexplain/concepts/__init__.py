"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.autoencoder_training import AutoencoderState as AutoencoderState
from vexplain.concepts.autoencoder_training import Reconstruction as Reconstruction
from vexplain.concepts.autoencoder_training import autoencoding as autoencoding
from vexplain.concepts.autoencoder_training import learn_autoencoder as learn_autoencoder
from vexplain.concepts.autoencoder_training import reconstruction as reconstruction
from vexplain.concepts.code_layer import with_codes as with_codes
from vexplain.concepts.sparse_autoencoder import SparseAutoencoder as SparseAutoencoder
from vexplain.concepts.sparse_autoencoder import decode as decode
from vexplain.concepts.sparse_autoencoder import encode as encode
