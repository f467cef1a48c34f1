"""Two ways to a long video from a network that sees few frames at once (paper, section 5).

*Chaining*: each segment begins with the last frame of the one before. *Sliding window*: one latent of all frames, whose
windows overlap and are averaged at every step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from unianimate_core import Conditions, InputError, UNet, console, noise_prior, offset_noise, sample
from unianimate_core.animate import Settings
from unianimate_core.autoencoder import Autoencoder
from unianimate_core.diffusion import window_starts
from unianimate_core.diffusion.noise import LONG_VIDEO_PRIOR
from unianimate_core.evaluation.clips import GroundTruth, cut_clip, list_videos, read_clip
from unianimate_core.evaluation.metrics import as_uint8, psnr
from unianimate_core.evaluation.parts import PartMeter
from unianimate_core.evaluation.pictures import mean_curves, side_by_side
from unianimate_core.evaluation.sources import sha256
from unianimate_core.model_options import ModelOptions
from unianimate_core.output import replacing, write_picture
from unianimate_core.video import VideoWriter, read_video

from .seams import by_segment, growth, jumps, seam, segment_borders, segments, window_borders
from .tables import known, long_video_plot

CHAINED, SLIDING = "chained", "sliding"
MEASURES = ("psnr_star", "identity")


@dataclass(frozen=True)
class LongSetup:
    """How long videos are made.

    Attributes:
        evaluation: Folder of videos of at least ``frames`` frames, poses beside them; with parts, identity is measured.
        models: Network, which brings the empty prompt, and autoencoder.
        output: Gets a folder ``long-video``.
        size: Width and height, pixels.
        frames: Of a video.
        clips: How many videos.
        segment: Frames of a segment; neighbours share one.
        window: Frames of a window.
        overlap: Frames that neighbouring windows share.
        sampling_steps: Of DDIM.
        guidance: Weight of the conditions.
        seed: Of the noise.
    """

    evaluation: Path
    models: ModelOptions
    output: Path
    size: tuple[int, int]
    frames: int
    clips: int
    segment: int
    window: int
    overlap: int
    sampling_steps: int
    guidance: float
    seed: int

    def check(self) -> list[GroundTruth]:
        """Look at everything before long work starts.

        Returns:
            The videos; the first frame of each is the reference picture.

        Raises:
            InputError: A number is out of range, there is too little memory, or no video is long enough.
        """
        if self.segment < 2:
            raise InputError(f"segments have {self.segment} frames: give 2 or more, as neighbours share one")
        window_starts(self.frames, self.window, self.overlap)
        at_once = max(self.segment, self.window)
        steps, guidance = self.sampling_steps, self.guidance
        settings = Settings(*self.size, at_once, 0, steps, guidance, LONG_VIDEO_PRIOR, self.seed)
        settings.check()
        self.models.check_memory(settings)
        if self.clips < 1:
            raise InputError(f"long videos are {self.clips}: give 1 or more")
        if self.frames <= at_once:
            raise InputError(
                f"long videos have {self.frames} frames, which one segment or window holds: give more than {at_once}"
            )
        found: list[GroundTruth] = []
        for source in list_videos(self.evaluation).values():
            if len(found) == self.clips:
                break
            try:
                found.append(cut_clip(read_clip(source), self.size, 0, self.frames, 0, self.frames))
            except InputError as error:
                console.note(f"Not for long videos: {error}")
        if not found:
            raise InputError(f"{self.evaluation} has no usable video of {self.frames} frames: give longer ones")
        return found

    def described(self) -> dict[str, Any]:
        """As the report has it."""
        files = {
            "checkpoint": self.models.checkpoint.name,
            "vae": self.models.vae.name,
            "dtype": self.models.dtype.value,
        }
        numbers = ("size", "frames", "clips", "segment", "window", "overlap", "sampling_steps", "guidance", "seed")
        return {"evaluation": self.evaluation.name, **files, **{name: getattr(self, name) for name in numbers}}


@dataclass(frozen=True)
class Scene:
    """All that a long video is made from.

    Attributes:
        conditions: Of a clip from a reference picture; the pose of all frames.
        noise: 1 4 f h w.
        sample: From x_T 1 4 f' h w and conditions of f' frames to x0; takes the arguments of `sample`.
        decode: From latents f 4 h w to pixels f 3 H W, 0-1.
    """

    conditions: Conditions
    noise: Tensor
    sample: Callable[..., Tensor]
    decode: Callable[[Tensor], Tensor]

    def make(self, conditions: Conditions, noise: Tensor, **windows: int) -> Tensor:
        """Frames f' 3 H W from conditions and noise of f' frames."""
        x_T = noise_prior(conditions.reference, noise, LONG_VIDEO_PRIOR)
        return self.decode(rearrange(self.sample(x_T, conditions, **windows), "1 c f h w -> f c h w"))


def chain(scene: Scene, size: int) -> Tensor:
    """A long video by first-frame chaining: f 3 H W; the frame that two segments share is the earlier one's."""
    made: list[Tensor] = []
    for start, stop in segments(scene.noise.shape[2], size):
        conditions = scene.conditions.frames(slice(start, stop))
        if made:
            conditions = replace(conditions, first_frame=made[-1][None])
        made += scene.make(conditions, scene.noise[:, :, start:stop])[1 if made else 0 :]
    return torch.stack(made)


def slide(scene: Scene, size: int, overlap: int) -> Tensor:
    """A long video by sliding windows: f 3 H W."""
    return scene.make(scene.conditions, scene.noise, window=size, overlap=overlap)


def long_video(setup: LongSetup, truths: list[GroundTruth]) -> dict[str, Any]:
    """Make long videos both ways, as far as they are not made yet, and measure them.

    Returns:
        ``settings``, ``clips`` and ``methods``: for each ``seams`` (of video and truth at the same frames, clip by
        clip), their means ``seam`` and ``seam_of_truth``, ``seconds`` for a video, and of PSNR* and identity the
        ``mean``, the means ``by_segment`` and the ``growth`` over 100 frames.
    """
    folder = setup.output / "long-video"
    folder.mkdir(parents=True, exist_ok=True)
    unet, autoencoder = setup.models.unet, setup.models.autoencoder
    borders = {
        CHAINED: segment_borders(setup.frames, setup.segment),
        SLIDING: window_borders(setup.frames, setup.window, setup.overlap),
    }
    seams: dict[str, list[tuple[float, float]]] = {CHAINED: [], SLIDING: []}
    seconds: dict[str, list[float]] = {CHAINED: [], SLIDING: []}
    curves = []
    for truth in truths:
        videos = {}
        for method in seams:
            videos[method], taken = _kept_or_made(method, truth, setup, unet, autoencoder, folder)
            seconds[method].append(taken)
            seams[method].append((seam(videos[method], borders[method]), seam(truth.frames, borders[method])))
        curves.append(_curves(truth, videos))
        panels = side_by_side({"reference": truth.reference[None], "truth": truth.frames, **videos})
        beside = folder / f"{truth.name}.mp4"
        with VideoWriter(beside, panels.shape[2], panels.shape[1], truth.fps, overwrite=True) as writer:
            writer.write(panels)
    means = mean_curves(curves)
    write_picture(long_video_plot(means, borders), setup.output / "long-video.png")
    methods = {}
    for method, pairs in seams.items():
        made, true = (float(np.mean(values)) for values in zip(*pairs, strict=True))
        methods[method] = {
            **known({"seam": made, "seam_of_truth": true}),
            "seams": [known({"made": one, "truth": two}) for one, two in pairs],
            "seconds": float(np.mean(seconds[method])),
        }
        for key in MEASURES:
            if key in means[method]:
                values = means[method][key]
                methods[method][key] = {
                    "mean": by_segment(values, [])[0],
                    "by_segment": by_segment(values, borders[CHAINED]),
                    "growth": growth(values),
                }
    return {"settings": setup.described(), "clips": [truth.name for truth in truths], "methods": methods}


def _curves(truth: GroundTruth, videos: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Numbers f over the frames: jump (NaN in the first), PSNR*, and identity where the parts are known."""
    meter = None if truth.parts is None else PartMeter(truth.parts, truth.frames)
    curves = {"truth": {"jump": np.append(np.nan, jumps(truth.frames))}}
    for method, video in videos.items():
        curves[method] = {"jump": np.append(np.nan, jumps(video)), "psnr_star": psnr(video, truth.frames)}
        if meter is not None:
            curves[method]["identity"] = meter.measure(video)["identity"]
    return curves


def _kept_or_made(
    method: str, truth: GroundTruth, setup: LongSetup, unet: UNet, autoencoder: Autoencoder, folder: Path
) -> tuple[np.ndarray, float]:
    """A long video uint8 f H W 3 and the seconds that it took; kept, lossless, with what it was made with."""
    video, note = folder / f"{truth.name}-{method}.mkv", folder / f"{truth.name}-{method}.json"
    source = list_videos(setup.evaluation)[truth.name]
    video.parent.mkdir(parents=True, exist_ok=True)
    made_with = setup.described() | {
        "checkpoint": sha256(setup.models.checkpoint),
        "vae": sha256(setup.models.vae),
        "video": sha256(source.video),
        "poses": sha256(*source.pose_files()),
        "device": setup.models.device.type,
    }
    del made_with["clips"]
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["made_with"] == json.loads(json.dumps(made_with)):
            return read_video(video)[0], kept["seconds"]
    except (OSError, ValueError, KeyError):  # not there, or damaged (InputError is a ValueError)
        pass
    start = time.perf_counter()
    with console.progress_bars() as progress:
        bar = progress.add_task(f"{truth.name}, {method}: network runs", total=None)
        scene = _scene(truth, setup, unet, autoencoder, lambda: progress.advance(bar))
        made = chain(scene, setup.segment) if method == CHAINED else slide(scene, setup.window, setup.overlap)
    seconds = time.perf_counter() - start
    frames = as_uint8(rearrange(made, "f c h w -> f h w c"))
    note.unlink(missing_ok=True)  # never beside a video that it does not describe
    with VideoWriter(video, *setup.size, truth.fps, overwrite=True, lossless=True) as writer:
        writer.write(frames)
    with replacing(note) as file:
        file.write_text(json.dumps({"made_with": made_with, "seconds": seconds}, indent=1), encoding="utf-8")
    return frames, seconds


def _scene(
    truth: GroundTruth, setup: LongSetup, unet: UNet, autoencoder: Autoencoder, advance: Callable[[], None]
) -> Scene:
    pixels = rearrange(torch.from_numpy(truth.reference), "h w c -> 1 c h w") / 255
    poses = rearrange(torch.from_numpy(truth.pose), "f h w c -> f c h w") / 255  # f 3 H W
    reference = autoencoder.encode(pixels)  # 1 4 h w
    generator = torch.Generator().manual_seed(setup.seed)

    def run(x_T: Tensor, conditions: Conditions, **windows: int) -> Tensor:
        steps, guidance = setup.sampling_steps, setup.guidance
        return sample(unet, x_T, conditions, steps, guidance, callback=lambda *_: advance(), **windows)

    return Scene(
        Conditions(pose=poses[None], reference=reference, reference_pose=poses[:1]),
        offset_noise((1, reference.shape[1], len(poses), *reference.shape[2:]), generator),
        run,
        autoencoder.decode,
    )
