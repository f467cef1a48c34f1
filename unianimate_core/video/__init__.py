"""Pictures and video: files in, files out."""

from .pictures import fit_picture, read_picture
from .reading import VideoReader, read_video
from .writing import VideoWriter

__all__ = ["VideoReader", "VideoWriter", "fit_picture", "read_picture", "read_video"]
