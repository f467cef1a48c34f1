"""Synthetic weights and inputs by the golden data's recipe (NumPy's frozen RandomState)."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden_data"


def synth(name, shape, base=0):
    random = np.random.RandomState((zlib.crc32(name.encode()) + base) & 0x7FFFFFFF)
    return torch.from_numpy(random.standard_normal(tuple(shape)).astype(np.float32))


def synth_weight(name, shape):
    value = synth(name, shape)
    if len(shape) > 1:
        return value / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * value if name.endswith("weight") else 0.05 * value


def golden_weights(file="unet_small_keys.json"):
    return {name: synth_weight(name, shape) for name, shape in json.loads((GOLDEN / file).read_text()).items()}


def relative_error(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())
