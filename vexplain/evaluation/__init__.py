"""Methods of explanation against ground truth, and against the network that they explain."""

from vexplain.evaluation.changed_networks import MapSimilarity as MapSimilarity
from vexplain.evaluation.explained_network import ExplainedNetwork as ExplainedNetwork
from vexplain.evaluation.flipping import BASELINES as BASELINES
from vexplain.evaluation.flipping import FlippingScores as FlippingScores
from vexplain.evaluation.flipping import class_probability as class_probability
from vexplain.evaluation.flipping import flipping_scores as flipping_scores
from vexplain.evaluation.sanity import SanityChecks as SanityChecks
from vexplain.evaluation.sanity import SanityScores as SanityScores
from vexplain.evaluation.sanity import sanity_checks as sanity_checks
