"""Visual Explanation by Interpretation (ICLR 2019): which features of a network are relevant for which class.

`responses` turns the activations of all layers into one vector per image, `gram_statistics` sums what the
regression needs in one pass over a dataset, `find_relevance` solves the sparse regression of every class, and
`feature_scores` with `top_features` choose what explains one image.
"""

from vexplain.relevance._features import Feature as Feature
from vexplain.relevance._features import Relevance as Relevance
from vexplain.relevance._features import features as features
from vexplain.relevance._features import find_relevance as find_relevance
from vexplain.relevance._features import num_features as num_features
from vexplain.relevance._features import relevant_union as relevant_union
from vexplain.relevance._moments import MOMENTS_LAYOUT as MOMENTS_LAYOUT
from vexplain.relevance._moments import Moments as Moments
from vexplain.relevance._responses import Measure as Measure
from vexplain.relevance._responses import responses as responses
from vexplain.relevance.ablation import AblationCounts as AblationCounts
from vexplain.relevance.ablation import ablation_counts as ablation_counts
from vexplain.relevance.ablation import contribution_sums as contribution_sums
from vexplain.relevance.ablation import leading_features as leading_features
from vexplain.relevance.ablation import matched_random as matched_random
from vexplain.relevance.ablation import matched_top as matched_top
from vexplain.relevance.alignment import Alignment as Alignment
from vexplain.relevance.alignment import align_crops as align_crops
from vexplain.relevance.alignment import identity_alignment as identity_alignment
from vexplain.relevance.alignment import move_crops as move_crops
from vexplain.relevance.alignment import residual_variance as residual_variance
from vexplain.relevance.average_images import AlignedAverage as AlignedAverage
from vexplain.relevance.average_images import FeatureView as FeatureView
from vexplain.relevance.average_images import aligned_averages as aligned_averages
from vexplain.relevance.average_images import average_image as average_image
from vexplain.relevance.average_images import crop_windows as crop_windows
from vexplain.relevance.average_images import interpret as interpret
from vexplain.relevance.candidates import MAX_GRAM_BYTES as MAX_GRAM_BYTES
from vexplain.relevance.candidates import candidate_layers as candidate_layers
from vexplain.relevance.candidates import default_layers as default_layers
from vexplain.relevance.candidates import gram_bytes as gram_bytes
from vexplain.relevance.candidates import layout_of as layout_of
from vexplain.relevance.candidates import response_fn as response_fn
from vexplain.relevance.copies import copied_features as copied_features
from vexplain.relevance.device_solver import DeviceSolution as DeviceSolution
from vexplain.relevance.device_solver import solve_on_device as solve_on_device
from vexplain.relevance.evidence import Evidence as Evidence
from vexplain.relevance.evidence import find_evidence as find_evidence
from vexplain.relevance.evidence import relevant_evidence as relevant_evidence
from vexplain.relevance.exemplars import Exemplars as Exemplars
from vexplain.relevance.exemplars import Pick as Pick
from vexplain.relevance.exemplars import top_exemplars as top_exemplars
from vexplain.relevance.lasso import LassoSolution as LassoSolution
from vexplain.relevance.lasso import mu_lasso as mu_lasso
from vexplain.relevance.layout import FeatureLayout as FeatureLayout
from vexplain.relevance.layout import feature_index as feature_index
from vexplain.relevance.layout import feature_layout as feature_layout
from vexplain.relevance.layout import layer_and_channel as layer_and_channel
from vexplain.relevance.layout import layout_size as layout_size
from vexplain.relevance.layout import split_features as split_features
from vexplain.relevance.learning import learn_relevance as learn_relevance
from vexplain.relevance.path import MuPath as MuPath
from vexplain.relevance.path import SelectedMu as SelectedMu
from vexplain.relevance.path import Stability as Stability
from vexplain.relevance.path import jaccard_interval as jaccard_interval
from vexplain.relevance.path import mu_path as mu_path
from vexplain.relevance.path import select_mu as select_mu
from vexplain.relevance.path import stability as stability
from vexplain.relevance.recipe import Explanation as Explanation
from vexplain.relevance.recipe import combined_maps as combined_maps
from vexplain.relevance.recipe import explain as explain
from vexplain.relevance.recipe import feature_name as feature_name
from vexplain.relevance.recipe import relevant_features as relevant_features
from vexplain.relevance.scores import TopFeatures as TopFeatures
from vexplain.relevance.scores import feature_scores as feature_scores
from vexplain.relevance.scores import top_features as top_features
from vexplain.relevance.statistics import Statistics as Statistics
from vexplain.relevance.statistics import gram_statistics as gram_statistics
from vexplain.relevance.statistics import merge_statistics as merge_statistics
from vexplain.relevance.storage import load_relevance as load_relevance
from vexplain.relevance.storage import save_relevance as save_relevance
