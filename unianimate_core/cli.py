"""The command line: `unianimate animate`, `convert`, `inspect`; the other commands stand beside what they run."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

try:
    import rich.progress  # noqa: F401  (typer brings it; told here where it is missing)
    import typer
except ImportError as missing:
    sys.exit(f"unianimate needs {missing.name}: install the extra `standalone` of this package")

import torch

from .assets import SMALL_SIZE
from .checkpoint import UNIANIMATE, check_finite, describe, read_tensors, save_tensors, unet_tensors
from .console import PUBLIC_SIZE, DType, note, parse_size, peek_checkpoint, progress_bars
from .errors import InputError
from .evaluation.command import evaluate
from .model_options import (
    CheckpointOption,
    ClipOption,
    DeviceOption,
    DTypeOption,
    GuidanceOption,
    NoisePriorOption,
    StepsOption,
    VaeOption,
    choose_models,
)
from .output import check_output
from .pose.alignment import MODES
from .pose.command import pose
from .training.autoencoder_command import train_autoencoder
from .training.command import train
from .training.puppets.command import puppets

CLIP_FRAMES = 16
SAMPLING_ADVICE = "Lower --size or --frames, or use --dtype fp16"
MEMORY_ADVICE = {
    "animate": SAMPLING_ADVICE,
    "evaluate": SAMPLING_ADVICE,
    "train": 'In the configuration lower batch or frames, or set gradient_checkpointing = true or precision = "bf16"',
    "train-autoencoder": "Lower --batch, --crop or --width",
}

app = typer.Typer(
    help="Animate a person's picture by a motion (UniAnimate).", no_args_is_help=True, pretty_exceptions_enable=False
)


AlignMode = Enum("AlignMode", {mode: mode.replace(" ", "-") for mode in MODES if mode != "none"}, type=str)


class FitName(str, Enum):
    """How a motion is put on a canvas of another aspect ratio."""

    crop = "crop"
    pad = "pad"
    stretch = "stretch"


@app.command()
def animate(
    reference: Annotated[Path, typer.Option(help="Picture of the person to animate.")],
    motion: Annotated[Path, typer.Option(help="JSON of POSE_KEYPOINT frames, or a folder of OpenPose JSON files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Video to write: .mp4, .mov, .mkv, .webm, .gif.")],
    checkpoint: CheckpointOption = None,
    vae: VaeOption = None,
    clip: ClipOption = None,
    reference_pose: Annotated[
        Path | None,
        typer.Option(help="JSON with the pose of the person in the picture.", show_default="as in the motion"),
    ] = None,
    align: Annotated[
        AlignMode | None,
        typer.Option(help="Give the motion the proportions and place of --reference-pose.", show_default="not"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Width x height.", show_default=f"{PUBLIC_SIZE}, {SMALL_SIZE} for the small model"),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames of the video; 0 for all of the motion.", show_default=f"up to {CLIP_FRAMES}"),
    ] = None,
    start: Annotated[int, typer.Option(help="First frame of the motion to use, from 0.")] = 0,
    steps: StepsOption = 30,
    guidance: GuidanceOption = None,
    noise_prior: NoisePriorOption = 949,
    seed: Annotated[int, typer.Option(help="Same seed, same video.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames per second of the video.")] = 30.0,
    fit: Annotated[FitName, typer.Option(help="Motion on a canvas of another aspect ratio.")] = FitName.crop,
    person: Annotated[int, typer.Option(help="Which of several people in the motion, from 0.")] = 0,
    canvas: Annotated[
        str | None, typer.Option(help="Width x height of the motion's pictures, where its files do not say it.")
    ] = None,
    dtype: DTypeOption = None,
    device: DeviceOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing video.")] = False,
) -> None:
    """Animate a picture by a motion."""
    from .animate import Settings
    from .animate import animate as run
    from .pose import align_motion, read_motion
    from .pose.cleaning import trim
    from .video import VideoWriter, read_picture

    if align is not None and reference_pose is None:
        raise InputError("--align needs --reference-pose: find it with `unianimate pose PICTURE`")
    models = choose_models(checkpoint, vae, clip, dtype, device)
    width, height = parse_size(size or models.size, "--size")
    picture = read_picture(reference)
    track = read_motion(motion, person, None if canvas is None else parse_size(canvas, "--canvas"))
    standing = None if reference_pose is None else read_motion(reference_pose)
    left = len(track) - start
    if frames is None:
        frames = min(CLIP_FRAMES, left)
    if guidance is None:
        guidance = models.guidance
    if align is not None:
        track, start = align_motion(trim(track, start, frames or None), standing, align.name), 0
    settings = Settings(width, height, frames or left, start, steps, guidance, noise_prior, seed, fit.value)
    settings.check()
    settings.check_motion(track)
    video = VideoWriter(output, width, height, fps, overwrite)
    models.check_memory(settings)

    if models.small:
        note("No --checkpoint given: using the small model that comes with the package.")
    elif clip is None:
        note("No --clip given: the picture's CLIP embedding is left out, the likeness may suffer.")
    if standing is None:
        note("No --reference-pose given: taking the motion's first pose as the picture's.")
    if lost := int((~track[start : start + settings.frames].present).sum()):
        note(f"{lost} of {settings.frames} frames of the motion show no person: their pose picture is black.")

    autoencoder = models.load_autoencoder()
    encoder, text = models.load_clip()
    image = None if encoder is None else encoder.encode_image(picture.movedim(-1, 0)[None])[0]
    del encoder  # only as long as it is needed: it is as large as the network
    unet = models.load_unet()
    with progress_bars() as progress, video:
        sampling = progress.add_task("sampling", total=None)
        decoding = progress.add_task("decoding", total=settings.frames, visible=False)

        def callback(done: int, total: int, _: torch.Tensor) -> None:
            progress.update(sampling, completed=done, total=total)

        for group in run(unet, autoencoder, picture, track, settings, standing, image, text, callback):
            video.write(group)
            progress.update(decoding, advance=len(group), visible=True)
    note(f"Wrote {output}: {settings.frames} frames of {width} x {height}.")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A UniAnimate checkpoint, .pth, .ckpt or .safetensors.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    dtype: Annotated[DType, typer.Option(help="Precision of the weights.")] = DType.fp16,
    clip: Annotated[
        Path | None, typer.Option(help="OpenCLIP ViT-H: store the empty prompt's tokens, so it is not needed again.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Convert a checkpoint to safetensors."""
    from .clip import load_clip
    from .unet.config import EMPTY_PROMPT

    check_output(target, (".safetensors",), overwrite)
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the source itself: choose another name")
    config, _ = peek_checkpoint(source)
    added = {}
    if clip is not None:
        prompt = load_clip(clip, vision=False).empty_prompt()  # 77 d
        if prompt.shape[1] != config.context_width:
            raise InputError(
                f"{clip} has tokens of width {prompt.shape[1]}, {source} takes {config.context_width}: "
                "give OpenCLIP ViT-H/14 for the public model"
            )
        added[EMPTY_PROMPT] = prompt.to(dtype.torch)
    tensors, metadata = read_tensors(source, dtype.torch)
    tensors = unet_tensors(tensors, str(source)) | added
    check_finite(tensors, f"{source} in {dtype.value}")
    save_tensors(tensors, target, {**metadata, "format": "pt"})
    note(f"Wrote {target}: {describe(tensors)}")


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="Any model file.")]) -> None:
    """Say what a file is."""
    from .unet import UNetConfig
    from .unet.loading import check_keys

    tensors, metadata = read_tensors(file)
    description = describe(tensors)
    lines = [f"{file}: {description}"]
    if description.kind.startswith("a UniAnimate"):
        plain = unet_tensors(tensors, str(file))
        runs = description.kind == UNIANIMATE  # the other kind is told by its sizes alone
        config = check_keys(plain, str(file)) if runs else UNetConfig.from_tensors(plain)
        check_finite(tensors, str(file))
        widths = ", ".join(str(config.width * multiplier) for multiplier in config.multipliers)
        lines += [
            f"  widths {widths}; {config.residual_blocks} residual block(s) a level; context {config.context_width}",
            f"  empty prompt's tokens: {'in the file' if config.prompt_tokens else 'not in the file'}",
        ]
    lines += [f"  {key}: {value}" for key, value in metadata.items()]
    typer.echo("\n".join(lines))


for command in (pose, train, evaluate, puppets, train_autoencoder):
    app.command()(command)


def main() -> None:
    """Run a command; what a user can mend ends in one line and exit code 2, not in a traceback."""
    try:
        app()
    except (InputError, OSError) as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        if not out_of_memory and "can't allocate memory" not in str(error):  # the CPU's has no type of its own
            raise
        advice = MEMORY_ADVICE.get(sys.argv[1], "Close other programs, or take a machine with more")
        _fail(f"out of memory ({error}). {advice}")


def _fail(message: str) -> NoReturn:
    typer.secho(f"error: {' '.join(message.splitlines())}", fg="red", err=True)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
