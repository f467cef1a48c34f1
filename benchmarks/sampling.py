"""Quality against time of samplers, schedules and step skipping: `python benchmarks/sampling.py data/evaluation`.

The samplers are ComfyUI's, so a real one runs them on the embedded model, through the example graph
`workflows/api/picture_to_video_exact_sampling.json`. Needs the extra `test`. The clips come from, for example,

    unianimate puppets data/evaluation --count 4 --frames 16 --seed 1001 --motion samples/dance.json --part 180:280 \
        --generated 0

Each clip is animated from its first frame by its own poses, with the same noise for all ways. Beside the distance to
the true video, where the model's own error is the larger part, stands the distance to what many steps of DDIM make.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from unianimate_core import InputError, assets, console
from unianimate_core.autoencoder import SCALE, load_autoencoder
from unianimate_core.evaluation.clips import GroundTruth, cut_clip, list_videos, read_clip
from unianimate_core.evaluation.metrics import as_uint8, psnr, ssim
from unianimate_core.output import check_folder, replacing

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

from comfy_host import find_or_make_host  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402

GRAPH = ROOT / "workflows" / "api" / "picture_to_video_exact_sampling.json"
RESULTS = Path(__file__).parent / "results" / "sampling"
PUBLIC = "public"
"""The timesteps of the public implementation's DDIM, by UniAnimateScheduler; with the sampler euler it is DDIM."""
SKIPPED = re.compile(r"EasyCache - skipped (\d+)/(\d+) steps")


@dataclass(frozen=True)
class Way:
    """A way to sample.

    Attributes:
        sampler: ComfyUI's name.
        schedule: ComfyUI's name, or `PUBLIC`.
        steps: As given to the scheduler.
        easycache: Threshold of core's EasyCache; None without it.
    """

    sampler: str
    schedule: str
    steps: int
    easycache: float | None = None

    @property
    def label(self) -> str:
        """For the reader."""
        name = "DDIM" if (self.sampler, self.schedule) == ("euler", PUBLIC) else f"{self.sampler}, {self.schedule}"
        return name if self.easycache is None else f"{name}, EasyCache {self.easycache:g}"


WAYS = [
    *(Way("euler", PUBLIC, steps) for steps in (50, 30, 25, 20, 16, 12)),
    *(
        Way("dpmpp_2m", schedule, steps)
        for schedule in (PUBLIC, "karras", "sgm_uniform", "simple", "beta")
        for steps in (20, 16, 12)
    ),
    *(Way(sampler, PUBLIC, steps) for sampler in ("uni_pc", "deis", "res_multistep") for steps in (20, 12)),
    *(Way("heun", PUBLIC, steps) for steps in (10,)),
    *(Way("euler", PUBLIC, 50, threshold) for threshold in (0.05, 0.1, 0.2, 0.4)),
    *(Way("dpmpp_2m", PUBLIC, 20, threshold) for threshold in (0.05, 0.1, 0.2)),
]
SHORT = [Way("euler", PUBLIC, 10), Way("dpmpp_2m", PUBLIC, 6), Way("euler", PUBLIC, 10, 0.2)]


def prompt(way: Way, clip: str, truth: GroundTruth, guidance: float, seed: int) -> dict[str, Any]:
    """The example graph for a clip and a way, up to the latent."""
    nodes = json.loads(GRAPH.read_text(encoding="utf-8"))
    frames, height, width, _ = truth.frames.shape
    nodes["3"]["inputs"]["image"] = f"{clip}.png"
    nodes["4"]["inputs"]["file"] = f"{clip}.json"
    nodes["5"]["inputs"] |= {"width": width, "height": height}
    nodes["7"]["inputs"] |= {"width": width, "height": height, "length": frames}
    nodes["8"]["inputs"]["noise_seed"] = seed
    nodes["9"]["inputs"]["cfg"] = guidance
    nodes["10"]["inputs"]["sampler_name"] = way.sampler
    if way.schedule == PUBLIC:
        nodes["11"]["inputs"]["steps"] = way.steps
    else:
        inputs = {"model": ["1", 0], "scheduler": way.schedule, "steps": way.steps, "denoise": 1.0}
        nodes["11"] = {"class_type": "BasicScheduler", "inputs": inputs}
    if way.easycache is not None:
        inputs = {"model": ["1", 0], "reuse_threshold": way.easycache, "start_percent": 0.15, "end_percent": 0.95}
        nodes["12"] = {"class_type": "EasyCache", "inputs": inputs | {"verbose": False}}
        nodes["9"]["inputs"]["model"] = ["12", 0]
    decoding = {"VAEDecode", "CreateVideo", "SaveVideo"}
    kept = {name: node for name, node in nodes.items() if node["class_type"] not in decoding}
    return kept | {"30": {"class_type": "SaveLatent", "inputs": {"samples": ["13", 0], "filename_prefix": "latent"}}}


class Sampling:
    """A server that samples, and the autoencoder that shows what came out."""

    def __init__(self, server: ComfyServer, guidance: float, seed: int) -> None:
        self.server, self.guidance, self.seed = server, guidance, seed
        self.autoencoder = load_autoencoder(assets.SMALL_VAE)

    def begin(self, clip: str, truth: GroundTruth) -> None:
        """Hand a clip's picture and motion over; the first sampling computes what all others find in the cache."""
        done, png = cv2.imencode(".png", cv2.cvtColor(truth.reference, cv2.COLOR_RGB2BGR))
        assert done
        self.server.put_input(f"{clip}.png", png.tobytes())
        self.server.put_input(f"{clip}.json", json.dumps(truth.track.to_pose_keypoints()).encode())
        self.sample(Way("euler", PUBLIC, 1), clip, truth)

    def sample(self, way: Way, clip: str, truth: GroundTruth) -> tuple[np.ndarray, float, int]:
        """The video uint8 f H W 3, the seconds until its latent was written, and how many steps were skipped."""
        graph = prompt(way, clip, truth, self.guidance, self.seed)
        said = len(SKIPPED.findall(self.server.log()))
        start = time.perf_counter()
        run = self.server.queue(graph)
        taken = time.perf_counter() - start
        (file,) = (path for path in self.server.output_files(run) if path.suffix == ".latent")
        latents = load_file(file)["latent_tensor"] * SCALE
        frames = torch.cat(list(self.autoencoder.decode_groups(latents)))  # f 3 H W
        skipped = SKIPPED.findall(self.server.log())[said:]
        return as_uint8(frames.permute(0, 2, 3, 1)), taken, int(skipped[-1][0]) if skipped else 0


def measure(
    ways: list[Way], truths: dict[str, GroundTruth], sampling: Sampling, converged: int
) -> Iterator[list[dict]]:
    """The rows, means over the clips so far; anew after every clip."""
    found: dict[Way, list[tuple[float, ...]]] = {way: [] for way in ways}
    for clip, truth in truths.items():
        sampling.begin(clip, truth)
        limit, _, _ = sampling.sample(Way("euler", PUBLIC, converged), clip, truth)
        for way in ways:
            video, taken, skipped = sampling.sample(way, clip, truth)
            quality = psnr(video, truth.frames).mean(), ssim(video, truth.frames).mean(), psnr(video, limit).mean()
            found[way].append((*quality, taken, skipped))
            print(
                f"{clip} {way.label}, {way.steps}: " + " ".join(f"{value:.3f}" for value in found[way][-1]), flush=True
            )
        names = ("psnr_star", "ssim", "psnr_to_converged", "seconds", "skipped")
        yield [
            {**vars(way), "label": way.label, **dict(zip(names, np.mean(values, axis=0).tolist(), strict=True))}
            for way, values in found.items()
        ]


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    about = results["about"]
    lines = [
        f"{about['clips']} clip(s) of {about['frames']} frames, {about['size']}, guidance {about['guidance']:g}, seed "
        f"{about['seed']}; {about['device']}; ComfyUI's samplers. Converged: DDIM of {about['converged']} steps.",
        "",
        "| Way | Steps | PSNR*, dB | SSIM | PSNR* to converged, dB | s | Skipped |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        numbers = f"{row['psnr_star']:.2f} | {row['ssim']:.4f} | {row['psnr_to_converged']:.2f} | {row['seconds']:.1f}"
        skipped = "" if row["easycache"] is None else f"{row['skipped']:.1f}"
        lines.append(f"| {row['label']} | {row['steps']} | {numbers} | {skipped} |")
    return "\n".join(lines) + "\n"


def read_truths(options: argparse.Namespace) -> dict[str, GroundTruth]:
    """The clips, cut, by a name that a file can have.

    Raises:
        InputError: A clip cannot be used.
    """
    width, height = console.parse_size(options.size, "--size")
    sources = list(list_videos(options.data).values())[: options.clips]
    cut = [cut_clip(read_clip(source), (width, height), 0, options.frames, 0) for source in sources]
    return {f"clip{number}": truth for number, truth in enumerate(cut)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of videos with poses beside them")
    parser.add_argument("--clips", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--size", default=assets.SMALL_SIZE, help="default: %(default)s")
    parser.add_argument("--guidance", type=float, default=assets.SMALL_GUIDANCE, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--converged", type=int, default=200, help="steps of DDIM to compare with; default: %(default)s"
    )
    parser.add_argument("--short", action="store_true", help="a few ways of few steps, to try the script")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder; default: %(default)s")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")

    try:
        truths = read_truths(options)
        check_folder(options.output)
    except InputError as error:
        sys.exit(f"error: {error}")
    about = {
        "command": " ".join(["python", "benchmarks/sampling.py", *sys.argv[1:]]),
        "device": f"CPU, {platform.processor() or platform.machine()}",
        "converged": options.converged,
        **{name: getattr(options, name) for name in ("frames", "size", "guidance", "seed")},
    }
    with tempfile.TemporaryDirectory() as base, ComfyServer(find_or_make_host(), Path(base)) as server:
        stats = server.get("/system_stats")
        about |= {name: stats["system"].get(name) for name in ("comfyui_version", "pytorch_version", "python_version")}
        sampling = Sampling(server, options.guidance, options.seed)
        for done, rows in enumerate(
            measure(SHORT if options.short else WAYS, truths, sampling, options.converged), start=1
        ):
            results = {"about": about | {"clips": done}, "rows": rows}
            for name, text in {"json": json.dumps(results, indent=1) + "\n", "md": table(results)}.items():
                with replacing(options.output / f"sampling.{name}") as file:
                    file.write_text(text, encoding="utf-8")
    print("\n" + table(results))


if __name__ == "__main__":
    main()
