"""The original an8Flower as a TFDS dataset: importing this registers `an8flower_release` with TFDS."""

from vexplain.datasets.an8flower_release.builder import An8flowerRelease as An8flowerRelease
from vexplain.datasets.an8flower_release.builder import View as View
from vexplain.datasets.an8flower_release.builder import fold_of_rendering as fold_of_rendering
from vexplain.datasets.an8flower_release.builder import views as views
