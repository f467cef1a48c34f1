"""The videos of a data set, ready to train on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .cache import Cache, CachedVideo, Source, UnusableVideo
from .config import DataConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".gif", ".m4v")

logger = logging.getLogger(__name__)


def find_sources(folders: tuple[Path, ...]) -> list[Source]:
    """All videos in and below some folders, by name.

    Raises:
        InputError: A folder is missing, or there is no video in any.
    """
    sources = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"[data] folder: there is no folder {folder}")
        for video in sorted(folder.rglob("*")):
            if video.suffix.lower() in VIDEO_SUFFIXES and not video.name.startswith(".") and video.is_file():
                beside = (video.with_suffix(".json"), video.with_suffix(""))
                motion = next((path for path in beside if path.exists()), None)
                sources.append(Source(video.relative_to(folder).as_posix(), video, motion))
    if not sources:
        shown, suffixes = ", ".join(map(str, folders)), ", ".join(VIDEO_SUFFIXES)
        raise InputError(f"there is no video in {shown}: give a folder of {suffixes} files, their poses beside them")
    return sources


def prepare_videos(config: DataConfig, accelerator: Accelerator) -> list[CachedVideo]:
    """Fill the cache, the processes sharing the work; name and count the videos that cannot be used.

    Returns:
        The others, by name; in every process the same.

    Raises:
        InputError: There are none, or the cache cannot be filled.
    """
    from accelerate.utils import gather_object
    from rich.console import Console
    from rich.progress import track

    sources = find_sources(config.folder)
    cache = Cache(config, accelerator.device)
    found: list[tuple[str, CachedVideo | str]] = []
    own = sources[accelerator.process_index :: accelerator.num_processes]
    console = Console(stderr=True)
    for source in track(own, "preparing videos", console=console, disable=not accelerator.is_main_process):
        try:
            video = cache.get(source)
            if video.frames < config.frames.low:
                raise UnusableVideo(f"it has {video.frames} frames, clips take {config.frames.low} or more")
            found.append((source.name, video))
        except UnusableVideo as error:
            found.append((source.name, str(error)))
    found = sorted(gather_object(found), key=lambda item: item[0])
    videos = [video for _, video in found if isinstance(video, CachedVideo)]
    skipped = [f"{name}: {reason}" for name, reason in found if isinstance(reason, str)]
    if not videos:
        shown = ", ".join(map(str, config.folder))
        raise InputError(f"none of the {len(found)} videos in {shown} can be used. {'; '.join(skipped[:3])}")
    if accelerator.is_main_process:
        for line in skipped:
            logger.warning("Skipped %s", line)
        frames = sum(video.frames for video in videos)
        logger.info("%d videos with %d frames; %d skipped.", len(videos), frames, len(skipped))
    return videos
