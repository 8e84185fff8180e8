"""Shape swap: two domains of shapes that share appearance and pose, with the true partner of each image."""

from vexplain.datasets.shape_swap.factors import TEXTURES as TEXTURES
from vexplain.datasets.shape_swap.factors import VARIANTS as VARIANTS
from vexplain.datasets.shape_swap.factors import Factors as Factors
from vexplain.datasets.shape_swap.factors import draw_factors as draw_factors
from vexplain.datasets.shape_swap.renderer import LEVELS as LEVELS
from vexplain.datasets.shape_swap.renderer import render as render
from vexplain.datasets.shape_swap.renderer import render_factors as render_factors
from vexplain.datasets.shape_swap.retrieval import APPEARANCE as APPEARANCE
from vexplain.datasets.shape_swap.retrieval import exemplars as exemplars
from vexplain.datasets.shape_swap.retrieval import galleries as galleries
from vexplain.datasets.shape_swap.source import PAIRED as PAIRED
from vexplain.datasets.shape_swap.source import SPLITS as SPLITS
from vexplain.datasets.shape_swap.source import Pairs as Pairs
from vexplain.datasets.shape_swap.source import ShapeSwapSource as ShapeSwapSource
from vexplain.datasets.shape_swap.source import paired_test as paired_test
