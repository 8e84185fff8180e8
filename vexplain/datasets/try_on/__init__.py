"""Try-on: a garment as a product and worn by a figure, with masks, context images and the true partners."""

from vexplain.datasets.rendered_domains import PAIRED as PAIRED
from vexplain.datasets.rendered_domains import SPLITS as SPLITS
from vexplain.datasets.try_on.factors import GARMENT as GARMENT
from vexplain.datasets.try_on.factors import Factors as Factors
from vexplain.datasets.try_on.factors import draw_factors as draw_factors
from vexplain.datasets.try_on.factors import in_catalog_pose as in_catalog_pose
from vexplain.datasets.try_on.renderer import render as render
from vexplain.datasets.try_on.renderer import render_factors as render_factors
from vexplain.datasets.try_on.retrieval import galleries as galleries
from vexplain.datasets.try_on.source import DOMAINS as DOMAINS
from vexplain.datasets.try_on.source import Pairs as Pairs
from vexplain.datasets.try_on.source import TryOnSource as TryOnSource
from vexplain.datasets.try_on.source import paired_test as paired_test
