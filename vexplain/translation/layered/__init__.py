"""Translation in layers: the appearance of one image in the shape of another domain, its texture carried.

After Wang, Ma, Oramas, Van Gool, Tuytelaars, An Unpaired Shape Transforming Method for Image Translation and
Cross-Domain Retrieval, arXiv 1812.02134 (*reconstructed*: of its method only the abstract is known here).
"""

from vexplain.translation.layered.losses import SCENE_WEIGHTS as SCENE_WEIGHTS
from vexplain.translation.layered.losses import LayeredWeights as LayeredWeights
from vexplain.translation.layered.model import LayeredTranslator as LayeredTranslator
from vexplain.translation.layered.model import Layers as Layers
from vexplain.translation.layered.networks import Carrier as Carrier
from vexplain.translation.layered.networks import Codes as Codes
from vexplain.translation.layered.networks import LayeredSettings as LayeredSettings
from vexplain.translation.layered.scenes import Scene as Scene
from vexplain.translation.layered.training import layered_training as layered_training
