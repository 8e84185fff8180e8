"""Why this image got this class, from the features that are relevant for it.

`explain` is the recipe of Visual Explanation by Interpretation (ICLR 2019); `relevant_evidence` is our own
map, made of the same features.
"""

from vexplain.explanation.evidence import Evidence as Evidence
from vexplain.explanation.evidence import relevant_evidence as relevant_evidence
from vexplain.explanation.recipe import OPTIONS as OPTIONS
from vexplain.explanation.recipe import Explanation as Explanation
from vexplain.explanation.recipe import check_options as check_options
from vexplain.explanation.recipe import combined_maps as combined_maps
from vexplain.explanation.recipe import explain as explain
from vexplain.explanation.recipe import feature_name as feature_name
