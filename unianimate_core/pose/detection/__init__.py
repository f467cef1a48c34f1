"""From pictures to the people in them: DWPose's two networks."""

from .detector import PoseDetector
from .people import NobodyFound, People, people_to_frame

__all__ = ["NobodyFound", "People", "PoseDetector", "people_to_frame"]
