"""How near a video is to the truth."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..unianimate_core.evaluation.metrics import as_uint8, check_pair, pixel_metrics
from ..unianimate_core.evaluation.pictures import caption, plot_curves, side_by_side
from ..unianimate_core.evaluation.report import table

CATEGORY = "UniAnimate/evaluation"


class EvaluateVideo(io.ComfyNode):
    """Metrics of a made video against the true one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Two videos of one size and length."""
        return io.Schema(
            node_id="UniAnimateEvaluate",
            display_name="Evaluate Video",
            category=CATEGORY,
            description="Compares a video with the truth, frame by frame: L1, PSNR, SSIM as the paper's tables have "
            "them. SSIM needs scikit-image in ComfyUI's Python, the plot matplotlib. LPIPS, FVD and whole folders: "
            "the command `unianimate evaluate`.",
            is_output_node=True,
            inputs=[
                io.Image.Input("made", tooltip="The video that was made, all its frames."),
                io.Image.Input("truth", tooltip="The true video: as many frames, of the same size."),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="Mean over the frames, as a Markdown table."),
                io.Image.Output(display_name="plot", tooltip="Each metric over the frames."),
                io.Image.Output(
                    display_name="side_by_side", tooltip="Made, true, and their difference four times enlarged."
                ),
            ],
        )

    @classmethod
    def execute(cls, made: torch.Tensor, truth: torch.Tensor) -> io.NodeOutput:
        """Measure in 8 bits, as the papers do; what a missing package prevents is said, the rest is done."""
        videos = [as_uint8(video[..., :3].clamp(0, 1), name) for video, name in ((made, "made"), (truth, "truth"))]
        check_pair(*videos)
        missing = []
        if not find_spec("skimage"):
            missing.append("SSIM is left out: install scikit-image in ComfyUI's Python for it.")
        values = pixel_metrics(*videos, with_ssim=not missing)
        text = table({"made": {key: float(numbers.mean()) for key, numbers in values.items()}})
        if find_spec("matplotlib"):
            plot = plot_curves({"made": values}, f"{len(videos[0])} frames")
        else:
            missing.append("No plot: install matplotlib in ComfyUI's Python for it.")
            plot = caption(missing[-1], 512)
        for line in missing:
            logging.warning("Evaluate Video: %s", line)
        text = "\n\n".join([text, *missing])
        difference = np.abs(videos[0].astype(np.int16) - videos[1])
        panels = {
            "made": videos[0],
            "truth": videos[1],
            "diff x 4": (4 * difference).clip(0, 255).astype(np.uint8),
        }
        plot, beside = _image(plot[None]), _image(side_by_side(panels))
        shown = ui.PreviewImage(plot, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(text, plot, beside, ui=shown)


def _image(frames: np.ndarray) -> torch.Tensor:
    """IMAGE f H W 3 of uint8 frames."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float() / 255


NODES = [EvaluateVideo]
