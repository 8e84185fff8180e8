"""What a relevant feature looks like: the images that excite it most, averaged at its receptive field."""

from vexplain.interpretation.average_images import FeatureView as FeatureView
from vexplain.interpretation.average_images import average_image as average_image
from vexplain.interpretation.average_images import crop_windows as crop_windows
from vexplain.interpretation.average_images import interpret as interpret
from vexplain.interpretation.exemplars import Exemplars as Exemplars
from vexplain.interpretation.exemplars import Pick as Pick
from vexplain.interpretation.exemplars import top_exemplars as top_exemplars
