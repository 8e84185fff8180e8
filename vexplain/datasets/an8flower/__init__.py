"""an8Flower, re-created: a flower whose class is the color of a part, with the truth for every pixel."""

from vexplain.datasets.an8flower.difficulty import DIFFICULTIES as DIFFICULTIES
from vexplain.datasets.an8flower.difficulty import Difficulty as Difficulty
from vexplain.datasets.an8flower.difficulty import difficulty_of as difficulty_of
from vexplain.datasets.an8flower.difficulty import part_names as part_names
from vexplain.datasets.an8flower.interventions import CHANGES as CHANGES
from vexplain.datasets.an8flower.interventions import Interventions as Interventions
from vexplain.datasets.an8flower.interventions import intervene as intervene
from vexplain.datasets.an8flower.renderer import Rendering as Rendering
from vexplain.datasets.an8flower.renderer import draw_view as draw_view
from vexplain.datasets.an8flower.renderer import render as render
from vexplain.datasets.an8flower.renderer import render_factors as render_factors
from vexplain.datasets.an8flower.scene import COLOR_NAMES as COLOR_NAMES
from vexplain.datasets.an8flower.scene import MIN_COVERAGE as MIN_COVERAGE
from vexplain.datasets.an8flower.scene import PARTS as PARTS
from vexplain.datasets.an8flower.scene import VARIANTS as VARIANTS
from vexplain.datasets.an8flower.scene import Factors as Factors
from vexplain.datasets.an8flower.scene import class_names as class_names
from vexplain.datasets.an8flower.scenery import Asked as Asked
from vexplain.datasets.an8flower.scenery import Scenery as Scenery
from vexplain.datasets.an8flower.source import RenderedSource as RenderedSource
from vexplain.datasets.an8flower.source import fold_indices as fold_indices
from vexplain.datasets.an8flower.source import fold_of as fold_of
