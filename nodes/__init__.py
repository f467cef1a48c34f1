"""The nodes, one file per stage of a graph."""

from . import (
    alignment,
    cleaning,
    conditioning,
    detection,
    evaluation,
    loaders,
    long_video,
    pose,
    pose_output,
    sampling,
    segment_files,
    segments,
)

STAGES = (
    loaders,
    detection,
    cleaning,
    alignment,
    pose,
    pose_output,
    conditioning,
    sampling,
    long_video,
    segments,
    segment_files,
    evaluation,
)
NODES = [node for stage in STAGES for node in stage.NODES]
