"""The command line: `unianimate animate`, `convert`, `inspect`; the other commands stand beside what they run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

try:
    import rich.progress  # noqa: F401  (typer brings it; told here where it is missing)
    import typer
except ImportError as missing:
    sys.exit(f"unianimate needs {missing.name}: install the extra `standalone` of this package")

import torch

from .animate_command import animate
from .batch.command import batch
from .checkpoint import check_finite, describe, read_tensors, save_tensors, unet_tensors
from .console import DType, note, peek_checkpoint
from .errors import InputError
from .evaluation.command import evaluate
from .output import check_output
from .pose.command import pose
from .training.autoencoder_command import train_autoencoder
from .training.command import train
from .training.puppets.command import puppets

SAMPLING_ADVICE = "Lower --size or --frames, or use --dtype fp16"
MEMORY_ADVICE = {
    "animate": f"{SAMPLING_ADVICE}; make a long video in segments (--segment)",
    "batch": SAMPLING_ADVICE,
    "evaluate": SAMPLING_ADVICE,
    "train": 'In the configuration lower batch or frames, or set gradient_checkpointing = true or precision = "bf16"',
    "train-autoencoder": "Lower --batch, --crop or --width",
}

app = typer.Typer(
    help="Animate a person's picture by a motion (UniAnimate).", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command("animate")(animate)


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
    from .unet.loading import check_keys, describe_temporal

    tensors, metadata = read_tensors(file)
    description = describe(tensors)
    lines = [f"{file}: {description}"]
    if description.kind.startswith("a UniAnimate"):
        plain = unet_tensors(tensors, str(file))
        config = check_keys(plain, str(file))
        check_finite(tensors, str(file))
        widths = ", ".join(str(config.width * multiplier) for multiplier in config.multipliers)
        lines += [
            f"  widths {widths}; {config.residual_blocks} residual block(s) a level; context {config.context_width}",
            f"  temporal layers: {describe_temporal(config)}",
            f"  empty prompt's tokens: {'in the file' if config.prompt_tokens else 'not in the file'}",
        ]
    lines += [f"  {key}: {value}" for key, value in metadata.items()]
    typer.echo("\n".join(lines))


for command in (batch, pose, train, evaluate, puppets, train_autoencoder):
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
