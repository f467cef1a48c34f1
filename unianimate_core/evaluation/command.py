"""The command `unianimate evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console
from ..model_options import (
    CheckpointOption,
    ClipOption,
    DeviceOption,
    DTypeOption,
    GuidanceOption,
    ModelOptions,
    NoisePriorOption,
    StepsOption,
    VaeOption,
    choose_models,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..animate import Settings
    from .sources import FolderSource, ModelSource

FRAMES = 32


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of videos, searched with its subfolders; beside each its poses: clip.mp4 and clip.json, or a "
            "folder clip of OpenPose's files."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if it is missing.")],
    predictions: Annotated[
        Path | None, typer.Option(help="Compare the videos of this folder, of the same names, instead of making any.")
    ] = None,
    checkpoint: CheckpointOption = None,
    vae: VaeOption = None,
    clip: ClipOption = None,
    size: Annotated[
        str | None,
        typer.Option(help="Width x height of the comparison.", show_default="as in animate; predictions: their own"),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames of each video, at most; 0 for all.", show_default=f"{FRAMES}; predictions: all"),
    ] = None,
    start: Annotated[int, typer.Option(help="First frame to compare, from 0.")] = 0,
    reference_frame: Annotated[
        int,
        typer.Option(
            help="The frame that is the reference picture. 0 as in the paper, which compares that frame too; "
            "--start 1 leaves it out."
        ),
    ] = 0,
    steps: StepsOption = 25,
    guidance: GuidanceOption = None,
    noise_prior: NoisePriorOption = 949,
    seed: Annotated[int, typer.Option(help="Same seed, same videos.")] = 0,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="torchvision's AlexNet (alexnet-owt-7be5be79.pth), for LPIPS.")
    ] = None,
    fvd_weights: Annotated[Path | None, typer.Option(help="I3D as TorchScript (i3d_torchscript.pt), for FVD.")] = None,
    dtype: DTypeOption = None,
    device: DeviceOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results. Videos made with the same settings are kept.")
    ] = False,
) -> None:
    """Measure how near videos are to the truth: L1, PSNR, SSIM, LPIPS, FVD, and parts of synthetic people."""
    from ..animate import Settings
    from ..errors import InputError
    from ..optional import EVALUATE_EXTRA, require
    from .clips import cut_clip, list_videos
    from .evaluate import evaluate as run
    from .perceptual import FVD_LEAST_FRAMES, Lpips, VideoFeatures, check_lpips_size

    for module, package in (("skimage.metrics", "scikit-image"), ("matplotlib.figure", "matplotlib")):
        require(module, f"{package}, or {EVALUATE_EXTRA}")
    videos = list_videos(data)
    making = predictions is None
    if not making and (checkpoint or vae or clip):
        raise InputError("--checkpoint, --vae and --clip make videos: leave them out with --predictions")
    for option, folder in (("--output", output / "made"), ("--predictions", predictions)):
        if folder is not None and data.resolve() in folder.resolve().parents:
            raise InputError(f"{option} would be in {data}, all whose videos are the truth: give another folder")
    models = choose_models(checkpoint, vae, clip, dtype, device) if making else None
    for option, value in (("--start", start), ("--reference-frame", reference_frame), ("--frames", frames or 0)):
        if value < 0:
            raise InputError(f"{option} is {value}: give 0 or more")
    frames = (frames if frames is not None else FRAMES if making else 0) or None
    least = 1 if fvd_weights is None else FVD_LEAST_FRAMES
    if fvd_weights is not None and len(videos) < 2:
        raise InputError(f"FVD compares sets of videos, {data} has one: leave --fvd-weights out, or give more")
    if frames is not None and frames < least:
        raise InputError(f"--frames is {frames}: FVD needs {least} or more")
    size = size or (models.size if models else None)
    shape = None if size is None else console.parse_size(size, "--size")
    if lpips_weights is not None and shape is not None:
        check_lpips_size(*shape)
    _check_folder(output, overwrite)
    where = models.device if models else console.choose_device(device)
    lpips = None if lpips_weights is None else Lpips(lpips_weights, where)
    features = None if fvd_weights is None else VideoFeatures(fvd_weights, where)
    asked: dict[str, Any] = {
        "data": str(data),
        "size": size,
        "frames": frames,
        "start": start,
        "reference frame": reference_frame,
        "LPIPS weights": lpips_weights and lpips_weights.name,
        "FVD weights": fvd_weights and fvd_weights.name,
    }
    model: ModelSource | None = None
    if models is not None:
        if guidance is None:
            guidance = models.guidance
        settings = Settings(*shape, frames or 1, start, steps, guidance, noise_prior, seed)
        model = _model_source(models, settings, reference_frame, output / "made")
        asked |= {"steps": steps, "guidance": guidance, "noise prior": noise_prior, "seed": seed}
        asked |= {"device": where.type, "dtype": models.dtype.value}
        asked |= {name: path and path.name for name, path in _files(models).items()}
    elif predictions is not None:
        existing = _folder_source(predictions, videos, shape)
        asked["predictions"] = str(predictions)
    output.mkdir(exist_ok=True)
    with console.progress_bars() as progress:
        bar = progress.add_task("videos", total=len(videos))
        if model is not None:
            sampling = progress.add_task("sampling", total=None)
            model.callback = lambda done, total, _: progress.update(sampling, completed=done, total=total)
        report = run(
            videos,
            model or existing,
            lambda clip: cut_clip(clip, shape, start, frames, reference_frame, least),
            output,
            asked,
            lpips,
            features,
            console.note,
            lambda: progress.advance(bar),
        )
    if model is not None and model.reused:
        console.note(f"{model.reused} videos were kept from before, made with the same settings, in {output / 'made'}.")
    for note in report["notes"]:
        console.note(note)
    console.note(f"Wrote {output}: metrics.md, metrics.json, contact_sheet.png, plots, side_by_side.")


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or holds results, before any work is done."""
    from ..errors import InputError
    from ..output import check_output

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder")
    if folder.exists():
        check_output(folder / "metrics.json", (".json",), overwrite)
    else:
        check_output(folder.parent / f"{folder.name}.json", (".json",), overwrite=True)


def _folder_source(predictions: Path, names: Iterable[str], size: tuple[int, int] | None) -> FolderSource:
    from ..errors import InputError
    from .clips import list_videos
    from .sources import FolderSource

    names, found = list(names), list_videos(predictions)
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"{predictions} has {len(names) - len(missing)} of {len(names)} videos: no {', '.join(missing[:5])}"
            f"{'' if len(missing) <= 5 else ', …'}. Name each as the true one"
        )
    return FolderSource({name: source.video for name, source in found.items()}, size)


def _model_source(models: ModelOptions, settings: Settings, reference: int, folder: Path) -> ModelSource:
    """Check all that can be checked, then load the models."""
    from .report import versions
    from .sources import ModelSource, sha256

    settings.check()
    models.check_memory(settings)
    autoencoder = models.autoencoder
    encoder, text = models.load_clip()
    unet = models.unet
    made_with = {name: path and sha256(path) for name, path in _files(models).items()}
    known = versions()
    made_with |= {"device": models.device.type, "dtype": models.dtype.value}
    made_with |= {name: known.get(name) for name in ("unianimate", "torch")}
    return ModelSource(unet, autoencoder, settings, reference, folder, made_with, encoder, text)


def _files(models: ModelOptions) -> dict[str, Path | None]:
    return {"checkpoint": models.checkpoint, "vae": models.vae, "clip": models.clip}
