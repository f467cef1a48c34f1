"""The nodes, one file per stage of a graph."""

from . import conditioning, evaluation, loaders, pose, sampling

NODES = [*loaders.NODES, *pose.NODES, *conditioning.NODES, *sampling.NODES, *evaluation.NODES]
