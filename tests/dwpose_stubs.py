"""DWPose's stub networks in PyTorch, with the weights of the golden data's ONNX files."""

import onnx
import torch
from onnx import numpy_helper
from pose_networks import DETECTOR, KEYPOINTS
from torch import nn
from torch.nn import functional


def constants(path):
    initializers = onnx.load(path).graph.initializer
    return {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in initializers}


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        values = constants(DETECTOR)
        self.weights = nn.ParameterList([values[f"w{stride}"] for stride in (8, 16, 32)])
        self.biases = nn.ParameterList([values[f"b{stride}"] for stride in (8, 16, 32)])

    def forward(self, pictures):  # b 3 h w
        parts = []
        for stride, weight, bias in zip((8, 16, 32), self.weights, self.biases, strict=True):
            parts.append(functional.conv2d(functional.avg_pool2d(pictures, stride), weight, bias).flatten(2).mT)
        rows = torch.cat(parts, 1)
        return torch.cat([rows[..., :4], rows[..., 4:].sigmoid()], 2)


class Keypoints(nn.Module):
    """With `batch`, it takes so many pictures at once and no other number, as the public TorchScript file does."""

    def __init__(self, batch=-1):
        super().__init__()
        self.batch = batch
        for name, value in constants(KEYPOINTS).items():
            if value.is_floating_point():
                self.register_parameter(name, nn.Parameter(value))

    def forward(self, pictures):  # b 3 384 288
        values = functional.avg_pool2d(pictures, 96).reshape(self.batch, 36)
        parts = [(values @ axis).reshape(self.batch, 133, 12) + self.bias for axis in (self.ax, self.ay)]
        return parts[0] @ self.ox, parts[1] @ self.oy


def save_torchscript(module, path, batch=2):
    """Traced, as the public files are."""
    size = (640, 640) if isinstance(module, Detector) else (384, 288)
    with torch.no_grad():
        torch.jit.trace(module.eval(), torch.zeros(batch, 3, *size), check_trace=False).save(str(path))
    return path
