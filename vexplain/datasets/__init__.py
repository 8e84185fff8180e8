"""Labeled images: sources with random access, renderers with known truth, TFDS builders.

The builders `an8flower_rendered`, `an8flower_release`, `cue_objects_rendered`, `shape_swap_rendered` and
`try_on_rendered` are imported by name, which registers them with TFDS; nothing here imports TFDS.
"""

from vexplain.datasets.batches import Batches as Batches
from vexplain.datasets.batches import epoch_batches as epoch_batches
from vexplain.datasets.batches import gather as gather
from vexplain.datasets.batches import in_memory as in_memory
from vexplain.datasets.batches import shuffled_batches as shuffled_batches
from vexplain.datasets.cue_conflict import cue_conflict_folder as cue_conflict_folder
from vexplain.datasets.cue_conflict import imagenet_categories as imagenet_categories
from vexplain.datasets.deep_fashion import consumer_to_shop as consumer_to_shop
from vexplain.datasets.deep_fashion import in_shop_views as in_shop_views
from vexplain.datasets.deep_fashion import item_folders as item_folders
from vexplain.datasets.digits import digits_source as digits_source
from vexplain.datasets.domains import paired_batches as paired_batches
from vexplain.datasets.domains import unpaired_batches as unpaired_batches
from vexplain.datasets.foreground import context_holes as context_holes
from vexplain.datasets.foreground import context_images as context_images
from vexplain.datasets.foreground import estimate_masks as estimate_masks
from vexplain.datasets.galleries import patterned as patterned
from vexplain.datasets.image_files import ImageFiles as ImageFiles
from vexplain.datasets.image_files import Resizing as Resizing
from vexplain.datasets.image_files import UnreadableImage as UnreadableImage
from vexplain.datasets.image_files import class_folders as class_folders
from vexplain.datasets.image_files import decode_image as decode_image
from vexplain.datasets.image_files import image_folder as image_folder
from vexplain.datasets.imagenet import IMAGENET_CATS as IMAGENET_CATS
from vexplain.datasets.imagenet import imagenet_archives as imagenet_archives
from vexplain.datasets.imagenet import imagenet_synsets as imagenet_synsets
from vexplain.datasets.mnist import mnist_folder as mnist_folder
from vexplain.datasets.multi_pie import multi_pie_views as multi_pie_views
from vexplain.datasets.paired_files import Domains as Domains
from vexplain.datasets.paired_files import read_pairs as read_pairs
from vexplain.datasets.paired_files import unpaired as unpaired
from vexplain.datasets.shapes3d import Shapes3DSource as Shapes3DSource
from vexplain.datasets.sources import ArraySource as ArraySource
from vexplain.datasets.sources import Source as Source
from vexplain.datasets.sources import subset as subset
from vexplain.datasets.sources import with_extras as with_extras
from vexplain.datasets.tfds_source import from_tfds as from_tfds
from vexplain.datasets.viton import viton_folders as viton_folders
