"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""

from vexplain.concepts.drawn_images import ImageStatistics as ImageStatistics
from vexplain.concepts.drawn_images import Parametrization as Parametrization
from vexplain.concepts.drawn_images import RandomViews as RandomViews
from vexplain.concepts.drawn_images import fixed_magnitudes as fixed_magnitudes
from vexplain.concepts.drawn_images import fourier_images as fourier_images
from vexplain.concepts.drawn_images import image_statistics as image_statistics
from vexplain.concepts.visualization import Visualization as Visualization
from vexplain.concepts.visualization import mean_channel as mean_channel
from vexplain.concepts.visualization import mean_projection as mean_projection
from vexplain.concepts.visualization import visualize as visualize
