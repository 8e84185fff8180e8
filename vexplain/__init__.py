"""What an image classifier has learned, and why it decided as it did.

The names here are the way from a network to its explanation: `layers`, `read`, `edit` and `with_rules` look
inside any function `apply(variables, images) -> logits`; `learn_relevance`, `interpret` and `explain` find
the features that matter, show what they look like, and say why an image got its class. Everything else is in
the rooms: `vexplain.attribution`, `vexplain.classifiers`, `vexplain.datasets`, `vexplain.evaluation`,
`vexplain.faithfulness`, `vexplain.figures`, `vexplain.metrics`, `vexplain.streaming`, `vexplain.training`,
`vexplain.translation`.
"""

from vexplain.attribution import class_score as class_score
from vexplain.attribution import grad_cam as grad_cam
from vexplain.attribution import gradient as gradient
from vexplain.attribution import guided_backprop as guided_backprop
from vexplain.attribution import upsampled_activation as upsampled_activation
from vexplain.datasets import ArraySource as ArraySource
from vexplain.datasets import Source as Source
from vexplain.evaluation import benchmark as benchmark
from vexplain.explanation import Evidence as Evidence
from vexplain.explanation import Explanation as Explanation
from vexplain.explanation import explain as explain
from vexplain.explanation import feature_name as feature_name
from vexplain.explanation import relevant_evidence as relevant_evidence
from vexplain.interpretation import FeatureView as FeatureView
from vexplain.interpretation import interpret as interpret
from vexplain.metrics import best_iou as best_iou
from vexplain.metrics import iou_area as iou_area
from vexplain.metrics import iou_curve as iou_curve
from vexplain.relevance import Relevance as Relevance
from vexplain.relevance import candidate_layers as candidate_layers
from vexplain.relevance import features as features
from vexplain.relevance import learn_relevance as learn_relevance
from vexplain.relevance import load_relevance as load_relevance
from vexplain.relevance import save_relevance as save_relevance
from vexplain.sharding import data_mesh as data_mesh
from vexplain.streaming import fold as fold
from vexplain.streaming import fold_epoch as fold_epoch
from vexplain.transforms import DECONVNET as DECONVNET
from vexplain.transforms import GUIDED as GUIDED
from vexplain.transforms import RESAMPLED_STRIDE as RESAMPLED_STRIDE
from vexplain.transforms import Layer as Layer
from vexplain.transforms import LayerTable as LayerTable
from vexplain.transforms import edit as edit
from vexplain.transforms import layers as layers
from vexplain.transforms import matched_layers as matched_layers
from vexplain.transforms import read as read
from vexplain.transforms import with_rules as with_rules

__all__ = [
    "DECONVNET",
    "GUIDED",
    "RESAMPLED_STRIDE",
    "ArraySource",
    "Evidence",
    "Explanation",
    "FeatureView",
    "Layer",
    "LayerTable",
    "Relevance",
    "Source",
    "benchmark",
    "best_iou",
    "candidate_layers",
    "class_score",
    "data_mesh",
    "edit",
    "explain",
    "feature_name",
    "features",
    "fold",
    "fold_epoch",
    "grad_cam",
    "gradient",
    "guided_backprop",
    "interpret",
    "iou_area",
    "iou_curve",
    "layers",
    "learn_relevance",
    "load_relevance",
    "matched_layers",
    "read",
    "relevant_evidence",
    "save_relevance",
    "upsampled_activation",
    "with_rules",
]
