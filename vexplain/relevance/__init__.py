"""Which features of a network are relevant for which class.

`responses` turns the activations of all layers into one vector per image, `gram_statistics` sums
what the regression needs in one pass over a dataset, `find_relevance` solves the sparse regression
of every class, and `feature_scores` with `top_features` choose what explains one image.
"""

from vexplain.relevance.ablation import ablation_accuracy as ablation_accuracy
from vexplain.relevance.ablation import random_masks as random_masks
from vexplain.relevance.ablation import relevant_masks as relevant_masks
from vexplain.relevance.candidates import MAX_GRAM_BYTES as MAX_GRAM_BYTES
from vexplain.relevance.candidates import candidate_layers as candidate_layers
from vexplain.relevance.candidates import default_layers as default_layers
from vexplain.relevance.candidates import gram_bytes as gram_bytes
from vexplain.relevance.candidates import layout_of as layout_of
from vexplain.relevance.candidates import response_fn as response_fn
from vexplain.relevance.features import Feature as Feature
from vexplain.relevance.features import Relevance as Relevance
from vexplain.relevance.features import features as features
from vexplain.relevance.features import find_relevance as find_relevance
from vexplain.relevance.features import num_features as num_features
from vexplain.relevance.features import relevant_union as relevant_union
from vexplain.relevance.lasso import LassoSolution as LassoSolution
from vexplain.relevance.lasso import mu_lasso as mu_lasso
from vexplain.relevance.layout import FeatureLayout as FeatureLayout
from vexplain.relevance.layout import feature_index as feature_index
from vexplain.relevance.layout import feature_layout as feature_layout
from vexplain.relevance.layout import layer_and_channel as layer_and_channel
from vexplain.relevance.layout import layout_size as layout_size
from vexplain.relevance.layout import split_features as split_features
from vexplain.relevance.learning import learn_relevance as learn_relevance
from vexplain.relevance.responses import Measure as Measure
from vexplain.relevance.responses import responses as responses
from vexplain.relevance.scores import TopFeatures as TopFeatures
from vexplain.relevance.scores import feature_scores as feature_scores
from vexplain.relevance.scores import top_features as top_features
from vexplain.relevance.statistics import Statistics as Statistics
from vexplain.relevance.statistics import gram_statistics as gram_statistics
from vexplain.relevance.storage import load_relevance as load_relevance
from vexplain.relevance.storage import save_relevance as save_relevance
