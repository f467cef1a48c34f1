"""The command line: `unianimate animate`, `convert`, `inspect`."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

try:
    import rich.progress
    import typer
except ImportError as missing:
    sys.exit(f"unianimate needs {missing.name}: install the extra `standalone` of this package")

import torch

from .checkpoint import check_finite, describe, read_tensors, save_tensors, unet_tensors
from .errors import InputError

ASSETS = Path(__file__).parent / "assets"
SMALL_UNET = ASSETS / "diffusion_models" / "unianimate_small.safetensors"
SMALL_VAE = ASSETS / "vae" / "unianimate_small_vae.safetensors"
SMALL_SIZE = "128x192"
PUBLIC_SIZE = "512x768"

app = typer.Typer(
    help="Animate a person's picture by a motion (UniAnimate).", no_args_is_help=True, pretty_exceptions_enable=False
)


class DType(str, Enum):
    """Precisions by their short names."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"

    @property
    def torch(self) -> torch.dtype:
        """PyTorch's name for it."""
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.value]


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
    checkpoint: Annotated[Path | None, typer.Option(help="UniAnimate weights; the small model if left out.")] = None,
    vae: Annotated[Path | None, typer.Option(help="SD 1.5's VAE, or a TAESD file.")] = None,
    clip: Annotated[Path | None, typer.Option(help="OpenCLIP ViT-H: open_clip_pytorch_model.bin.")] = None,
    reference_pose: Annotated[
        Path | None,
        typer.Option(help="JSON with the pose of the person in the picture; else the motion's first frame."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help=f"Width x height [{PUBLIC_SIZE}, or {SMALL_SIZE} for the small model].")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of the video; 0 for all of the motion.")] = 16,
    start: Annotated[int, typer.Option(help="First frame of the motion to use.")] = 0,
    steps: Annotated[int, typer.Option(help="DDIM steps, 25 to 50 are usual.")] = 30,
    guidance: Annotated[float, typer.Option(help="Weight of the conditions; 1 switches guidance off.")] = 2.5,
    noise_prior: Annotated[int, typer.Option(help="Timestep of the noise prior, 0 to 999; 0 for pure noise.")] = 949,
    seed: Annotated[int, typer.Option(help="Same seed, same video.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames per second of the video.")] = 30.0,
    fit: Annotated[FitName, typer.Option(help="Motion on a canvas of another aspect ratio.")] = FitName.crop,
    person: Annotated[int, typer.Option(help="Which of several people in the motion, from 0.")] = 0,
    dtype: Annotated[DType | None, typer.Option(help="Precision [fp16 on a GPU, fp32 on the CPU].")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, cpu, mps … [the GPU if there is one].")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing video.")] = False,
) -> None:
    """Animate a picture by a motion."""
    from .animate import Settings
    from .animate import animate as run
    from .autoencoder import load_autoencoder
    from .pose import read_motion
    from .unet import load_unet
    from .video import VideoWriter, check_output, read_picture

    check_output(output, overwrite)
    track = read_motion(motion, person)
    standing = None if reference_pose is None else read_motion(reference_pose)
    picture = read_picture(reference)
    width, height = _size(size or (PUBLIC_SIZE if checkpoint else SMALL_SIZE))
    settings = Settings(
        width, height, frames or len(track) - start, start, steps, guidance, noise_prior, seed, fit.value
    )
    settings.check(track)
    if checkpoint is None and vae is None:
        _note(f"No --checkpoint given: using the small model that comes with the package.{_training_state()}")
    elif checkpoint is None or vae is None:
        raise InputError("--checkpoint and --vae belong together: give both, or neither for the small model")

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = dtype.torch if dtype else torch.float32 if where.type == "cpu" else torch.float16
    unet = load_unet(checkpoint or SMALL_UNET, precision, where)
    _check_memory(unet, settings, precision, where)
    text = encode_image = None
    if clip is not None:
        from .clip import load_clip

        encoder = load_clip(clip, dtype=precision, device=where, text=unet.empty_prompt is None)
        encode_image = encoder.encode_image
        text = encoder.empty_prompt() if unet.empty_prompt is None else None
    elif unet.empty_prompt is None:
        raise InputError(
            "this checkpoint needs --clip (OpenCLIP ViT-H), at least once: see `unianimate convert --clip`"
        )
    elif checkpoint is not None:
        _note("No --clip given: the picture's CLIP embedding is left out, the likeness may suffer.")
    if standing is None:
        _note("No --reference-pose given: taking the motion's first frame as the picture's pose.")
    lost = int((~track[start : start + settings.frames].present).sum())
    if lost:
        _note(f"{lost} of {settings.frames} frames of the motion show no person: their pose picture is black.")

    autoencoder = load_autoencoder(vae or SMALL_VAE, precision, where)
    with _progress() as progress, VideoWriter(output, width, height, fps, overwrite) as writer:
        sampling = progress.add_task("sampling", total=None)
        decoding = progress.add_task("decoding", total=settings.frames, visible=False)
        groups = run(
            unet,
            autoencoder,
            picture,
            track,
            settings,
            standing,
            encode_image,
            text,
            callback=lambda done, total, _: progress.update(sampling, completed=done, total=total),
        )
        for group in groups:
            writer.write(group)
            progress.update(decoding, advance=len(group), visible=True)
    _note(f"Wrote {output}: {settings.frames} frames of {width} x {height}.")


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
    from .unet.config import EMPTY_PROMPT
    from .unet.loading import check_keys

    if target.suffix != ".safetensors":
        raise InputError(f"{target} must end in .safetensors")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists: choose another name, or pass --overwrite")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent}: create it first")
    tensors, metadata = read_tensors(source)
    tensors = unet_tensors(tensors, str(source))
    check_keys(tensors, str(source))
    check_finite(tensors, str(source))
    if clip is not None:
        from .clip import load_clip

        tensors[EMPTY_PROMPT] = load_clip(clip, vision=False).empty_prompt()
    tensors = {name: tensor.to(dtype.torch) for name, tensor in tensors.items()}
    check_finite(tensors, f"{source} in {dtype.value}")
    save_tensors(tensors, target, {**metadata, "format": "pt"})
    _note(f"Wrote {target}: {describe(tensors)}")


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="Any model file.")]) -> None:
    """Say what a file is."""
    from .unet import UNetConfig

    tensors, metadata = read_tensors(file)
    description = describe(tensors)
    lines = [f"{file}: {description}"]
    if "UniAnimate" in description.kind and "Mamba" not in description.kind:
        tensors = unet_tensors(tensors, str(file))
        config = UNetConfig.from_tensors(tensors)
        widths = ", ".join(str(config.width * multiplier) for multiplier in config.multipliers)
        lines += [
            f"  widths {widths}; {config.residual_blocks} residual block(s) a level; context {config.context_width}",
            f"  empty prompt's tokens: {'in the file' if config.prompt_tokens else 'not in the file'}",
        ]
    lines += [f"  {key}: {value}" for key, value in metadata.items()]
    typer.echo("\n".join(lines))


def main() -> None:
    """Run a command; what a user can mend ends in one line and exit code 2, not in a traceback."""
    try:
        app()
    except InputError as error:
        _fail(str(error))
    except torch.OutOfMemoryError as error:
        _fail(f"out of memory ({error}). Lower --size or --frames, or use --dtype fp16")


def _fail(message: str) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise SystemExit(2)


def _note(message: str) -> None:
    typer.echo(message, err=True)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise InputError(f"--size is {text!r}: write width x height, for example {PUBLIC_SIZE}") from None


def _training_state() -> str:
    _, metadata = read_tensors(SMALL_UNET)
    untrained = metadata.get("unianimate") == "untrained"
    return " It is UNTRAINED: the video will show noise, not a person." if untrained else ""


def _check_memory(unet, settings, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse what cannot fit before any work is done."""
    from .unet.memory import activation_bytes, available_bytes

    frames, height, width = settings.frames, settings.height // 8, settings.width // 8
    needed = activation_bytes(unet.config, frames, height, width, dtype)
    available = available_bytes(device)
    if available is not None and needed > available:
        raise InputError(
            f"{frames} frames of {settings.width} x {settings.height} would take about {needed / 2**30:.1f} GiB beside "
            f"the weights; {available / 2**30:.1f} GiB are free on {device}. Lower --size or --frames"
        )


def _progress() -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
    )


if __name__ == "__main__":
    main()
