"""State space models along the frames: the selective scan (arXiv 2312.00752) and the bidirectional block."""

from .block import BidirectionalMamba, MambaSizes
from .scan import Branch, describe_scan, scan_implementations, selective_scan

__all__ = [
    "BidirectionalMamba",
    "Branch",
    "MambaSizes",
    "describe_scan",
    "scan_implementations",
    "selective_scan",
]
