"""Whether a map tells of the network: curves of deletion and insertion, and sanity checks.

A map may cover the right region because that is where edges are. These tests ask the network itself: what
happens to its score when pixels go in the order of the map, and what happens to the map when the weights of
the network are shuffled. How alike two maps are is measured in `vexplain.metrics`.
"""

from vexplain.faithfulness.baselines import blurred_images as blurred_images
from vexplain.faithfulness.baselines import border_colors as border_colors
from vexplain.faithfulness.baselines import darkest_values as darkest_values
from vexplain.faithfulness.part_effects import part_effects as part_effects
from vexplain.faithfulness.pixel_flipping import FlippingCurve as FlippingCurve
from vexplain.faithfulness.pixel_flipping import faithfulness_estimate as faithfulness_estimate
from vexplain.faithfulness.pixel_flipping import pixel_flipping as pixel_flipping
from vexplain.faithfulness.randomization import parameter_groups as parameter_groups
from vexplain.faithfulness.randomization import parameter_groups_from_output as parameter_groups_from_output
from vexplain.faithfulness.randomization import randomization_stages as randomization_stages
from vexplain.faithfulness.randomization import randomized_variables as randomized_variables
from vexplain.faithfulness.sanity_check import Similarity as Similarity
from vexplain.faithfulness.sanity_check import map_similarity as map_similarity
from vexplain.faithfulness.sanity_check import randomization_check as randomization_check
