"""Methods of explanation against ground truth, and against the network that they explain."""

from vexplain.evaluation.changed_networks import MapSimilarity as MapSimilarity
from vexplain.evaluation.comparison import Difference as Difference
from vexplain.evaluation.comparison import compare as compare
from vexplain.evaluation.comparison import compare_over_cells as compare_over_cells
from vexplain.evaluation.explained_network import ExplainedNetwork as ExplainedNetwork
from vexplain.evaluation.flipping import BASELINES as BASELINES
from vexplain.evaluation.flipping import FlippingScores as FlippingScores
from vexplain.evaluation.flipping import class_probability as class_probability
from vexplain.evaluation.flipping import flipping_scores as flipping_scores
from vexplain.evaluation.methods import CONTROLS as CONTROLS
from vexplain.evaluation.methods import OURS as OURS
from vexplain.evaluation.methods import OWN as OWN
from vexplain.evaluation.methods import Method as Method
from vexplain.evaluation.methods import hindsight_methods as hindsight_methods
from vexplain.evaluation.methods import methods_for as methods_for
from vexplain.evaluation.part_truth import with_part_effects as with_part_effects
from vexplain.evaluation.sanity import SanityChecks as SanityChecks
from vexplain.evaluation.sanity import SanityScores as SanityScores
from vexplain.evaluation.sanity import sanity_checks as sanity_checks
from vexplain.evaluation.scores import CEILING as CEILING
from vexplain.evaluation.scores import READINGS as READINGS
from vexplain.evaluation.scores import SCORES as SCORES
from vexplain.evaluation.scores import Score as Score
from vexplain.evaluation.scores import ScoreState as ScoreState
from vexplain.evaluation.scores import heatmap_scores as heatmap_scores
from vexplain.evaluation.scores import summarize as summarize
