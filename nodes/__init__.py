"""The nodes, one file per stage of a graph."""

from . import alignment, cleaning, conditioning, detection, evaluation, loaders, pose, pose_output, sampling

STAGES = (loaders, detection, cleaning, alignment, pose, pose_output, conditioning, sampling, evaluation)
NODES = [node for stage in STAGES for node in stage.NODES]
