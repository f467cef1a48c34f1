"""What the commands share: precisions, sizes, devices, progress, messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import torch
import typer

from .checkpoint import read_tensors, unet_tensors
from .errors import InputError

if TYPE_CHECKING:
    import rich.progress

    from .unet import UNetConfig

PUBLIC_SIZE = "512x768"
GUIDANCE = 2.5


class DType(str, Enum):
    """Precisions by their short names."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"

    @property
    def torch(self) -> torch.dtype:
        """PyTorch's name for it."""
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.value]


def note(message: str) -> None:
    """Say something to the user; standard output is for results."""
    typer.echo(message, err=True)


def parse_size(text: str, option: str) -> tuple[int, int]:
    """Read an option's ``width x height``.

    Raises:
        InputError: It is something else.
    """
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise InputError(f"{option} is {text!r}: write width x height, for example {PUBLIC_SIZE}") from None


def choose_device(name: str | None) -> torch.device:
    """Take the device of that name; CUDA's first, or the CPU, where there is none.

    Raises:
        InputError: PyTorch cannot use it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # an unknown name; a device that this PyTorch or machine lacks
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used ({reason}): leave it out, or choose cpu") from error
    return device


def peek_checkpoint(path: Path) -> tuple[UNetConfig, int]:
    """A checkpoint's sizes and its number of parameters; the weights stay in the file."""
    from .unet.loading import check_keys

    tensors = unet_tensors(read_tensors(path)[0], str(path))
    return check_keys(tensors, str(path)), sum(tensor.numel() for tensor in tensors.values())


def command_of(options: type, run: Callable[[Any], None]) -> Callable[..., None]:
    """A command for typer whose options are the fields of a dataclass, and which runs with one made of them.

    Args:
        options: The dataclass; its fields are annotated as typer takes them.
        run: What the command does; its docstring is the command's help.
    """
    hints = get_type_hints(options, include_extras=True)
    signature = inspect.signature(options)
    parameters = [parameter.replace(annotation=hints[name]) for name, parameter in signature.parameters.items()]

    def command(**given: Any) -> None:
        run(options(**given))

    command.__doc__ = run.__doc__
    command.__annotations__ = hints
    command.__signature__ = signature.replace(parameters=parameters, return_annotation=None)
    return command


def progress_bars() -> rich.progress.Progress:
    """Progress bars on standard error."""
    import rich.console
    import rich.progress

    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
    )
