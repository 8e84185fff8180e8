"""Function transformations that looking inside a network needs: read, edit, other backward rules."""

from vexplain.transforms.activations import as_layer_output as as_layer_output
from vexplain.transforms.activations import channels_last as channels_last
from vexplain.transforms.activations import edit as edit
from vexplain.transforms.activations import read as read
from vexplain.transforms.attention import Attention as Attention
from vexplain.transforms.attention import read_attention as read_attention
from vexplain.transforms.biases import BiasTerm as BiasTerm
from vexplain.transforms.biases import bias_terms as bias_terms
from vexplain.transforms.layer import Layer as Layer
from vexplain.transforms.layer_table import LayerTable as LayerTable
from vexplain.transforms.layer_table import layers as layers
from vexplain.transforms.loops import fast_in_loops as fast_in_loops
from vexplain.transforms.rules import DECONVNET as DECONVNET
from vexplain.transforms.rules import GUIDED as GUIDED
from vexplain.transforms.rules import RESAMPLED_POOL as RESAMPLED_POOL
from vexplain.transforms.rules import RESAMPLED_STRIDE as RESAMPLED_STRIDE
from vexplain.transforms.rules import Rule as Rule
from vexplain.transforms.rules import Rules as Rules
from vexplain.transforms.rules import Step as Step
from vexplain.transforms.rules import matched_layers as matched_layers
from vexplain.transforms.rules import with_rules as with_rules
