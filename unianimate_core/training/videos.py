"""The videos of a data set, ready to train on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..data_folder import find_sources
from ..errors import InputError
from ..output import remove_partial
from .cache import Cache, CachedVideo, UnusableVideo
from .config import DataConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

ABANDONED = 24 * 3600  # seconds after which nobody writes a cached file any more

logger = logging.getLogger(__name__)


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

    try:
        sources = find_sources(config.folder)
    except InputError as error:
        raise InputError(f"[data] folder: {error}") from error
    cache = Cache(config, accelerator.device)
    if accelerator.is_main_process:
        remove_partial(config.cache, age=ABANDONED)
    found: list[tuple[str, str, CachedVideo | str]] = []
    own = sources[accelerator.process_index :: accelerator.num_processes]
    console = Console(stderr=True)
    for source in track(own, "preparing videos", console=console, disable=not accelerator.is_main_process):
        try:
            video = cache.get(source)
            if video.frames < config.frames.low:
                raise UnusableVideo(f"it has {video.frames} frames, clips take {config.frames.low} or more")
            found.append((source.name, str(source.video), video))
        except UnusableVideo as error:
            found.append((source.name, str(source.video), str(error)))
    found = sorted(gather_object(found), key=lambda item: item[:2])  # two folders may have the same names
    videos = [video for *_, video in found if isinstance(video, CachedVideo)]
    skipped = [f"{name}: {reason}" for name, _, reason in found if isinstance(reason, str)]
    if not videos:
        shown = ", ".join(map(str, config.folder))
        raise InputError(f"none of the {len(found)} videos in {shown} can be used. {'; '.join(skipped[:3])}")
    if accelerator.is_main_process:
        for line in skipped:
            logger.warning("Skipped %s", line)
        frames = sum(video.frames for video in videos)
        logger.info("%d videos with %d frames; %d skipped.", len(videos), frames, len(skipped))
    return videos
