"""The loop under everything that runs over a dataset: sharded, with checkpoints and exact resume."""

from vexplain.streaming.checkpoints import Checkpoint as Checkpoint
from vexplain.streaming.checkpoints import CheckpointError as CheckpointError
from vexplain.streaming.devices import Mesh as Mesh
from vexplain.streaming.devices import data_mesh as data_mesh
from vexplain.streaming.devices import shard_batch as shard_batch
from vexplain.streaming.divergence import TrainingDiverged as TrainingDiverged
from vexplain.streaming.loop import fold as fold
from vexplain.streaming.loop import fold_epoch as fold_epoch
from vexplain.streaming.processes import agree_on as agree_on
from vexplain.streaming.processes import gather_values as gather_values
from vexplain.streaming.processes import is_writer as is_writer
