"""What `unianimate animate` does once all is checked: segments, each kept when it is whole, then the video of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import note, progress_bars

if TYPE_CHECKING:
    import torch

    from .animate import Settings
    from .long_video import Chaining, LongVideo
    from .model_options import ModelOptions
    from .pose import MotionTrack
    from .segment_folder import SegmentFolder
    from .video import VideoWriter


@dataclass(frozen=True)
class Work:
    """A video to make, all of it checked.

    Attributes:
        models: Loaded when they are needed.
        settings: Size, length, sampling.
        chaining: Its segments; one where it is a clip.
        picture: The reference picture, h w 3, 0-1.
        track: The motion.
        standing: The pose of the person in the picture, or None.
        kept: Where segments stay until the video is whole.
        video: Its writer.
    """

    models: ModelOptions
    settings: Settings
    chaining: Chaining
    picture: torch.Tensor
    track: MotionTrack
    standing: MotionTrack | None
    kept: SegmentFolder
    video: VideoWriter

    def made_with(self) -> dict[str, Any]:
        """All that the segments depend on."""
        from .evaluation.report import versions

        models, known = self.models, versions()
        files = {"checkpoint": models.checkpoint, "vae": models.vae, "clip": models.clip}
        described = {name.replace("_", " "): value for name, value in asdict(self.settings).items()}
        described |= {f"segments' {name}": value for name, value in asdict(self.chaining).items()}
        described |= {name: path and path.is_file() and _version(path) for name, path in files.items()}
        described |= {"device": models.device.type, "dtype": models.dtype.value}
        described |= {name: known.get(name) for name in ("unianimate", "torch")}
        described["reference"] = hashlib.sha256(self.picture.numpy().tobytes()).hexdigest()
        described |= {"motion": _digest(self.track), "reference pose": self.standing and _digest(self.standing)}
        return described

    def make(self) -> None:
        """Make the segments that are not there yet, then the video of all."""
        from .animate import Animation
        from .diffusion.ddim import windows_that_fit
        from .long_video import LongVideo
        from .unet.config import PIXELS_PER_LATENT

        kept = self.kept
        autoencoder = self.models.autoencoder
        encoder, text = self.models.load_clip()
        image = None if encoder is None else encoder.encode_image(self.picture.movedim(-1, 0)[None])[0]
        del encoder  # only as long as it is needed: it is as large as the network
        unet = self.models.unet
        settings = self.settings
        if settings.window is not None and settings.windows_at_once is None:
            cells = settings.height // PIXELS_PER_LATENT, settings.width // PIXELS_PER_LATENT
            at_once = windows_that_fit(unet, settings.window, settings.frames, 1, *cells)
            settings = replace(settings, windows_at_once=at_once)
        plan = self.chaining.plan(settings.frames)
        # What fitted then, not what fits now: their number shows in the last bit.
        at_once = kept.begin({"windows at once": settings.windows_at_once})["windows at once"]
        settings = replace(settings, windows_at_once=at_once)
        try:
            inputs = self.picture, self.track, settings, self.standing, image, text
            long_video = LongVideo(Animation(unet, autoencoder, *inputs), self.chaining)
            if len(kept):
                note(f"{len(kept)} of {len(plan)} segments are there already: going on.")
            self._write(long_video)
        except BaseException:
            if len(kept):
                note(
                    f"Stopped with {len(kept)} of {len(plan)} segments finished, which stay in {kept.path}: "
                    "the same command goes on from there."
                )
            else:
                kept.remove()
            raise
        finally:
            kept.release()
        kept.remove()
        note(f"Wrote {self.video.path}: {settings.frames} frames of {settings.width} x {settings.height}.")

    def _write(self, long_video: LongVideo) -> None:
        plan, kept, video = long_video.plan, self.kept, self.video
        with progress_bars() as progress, video:
            segments = progress.add_task("segments", total=len(plan), completed=len(kept), visible=len(plan) > 1)
            sampling = progress.add_task("sampling", total=None)
            decoding = progress.add_task("decoding", total=None, visible=False)
            writing = progress.add_task("writing", total=self.settings.frames, visible=False)

            def callback(done: int, total: int, _: torch.Tensor) -> None:
                progress.update(sampling, completed=done, total=total)
                if done == total:
                    frames = plan[len(kept)].length - plan[len(kept)].padding
                    progress.update(decoding, completed=0, total=frames, visible=True)

            def decoded(frames: int) -> None:
                progress.advance(decoding, frames)

            for _ in long_video.segments(kept, callback, decoded):
                progress.update(segments, completed=len(kept))
            for number in range(len(plan)):
                for frames in long_video.written(number, kept.read(number)).split(1):
                    video.write(frames)
                    progress.update(writing, advance=1, visible=True)


def _version(file: Path) -> list[int]:
    """Tells a file from another that takes its place; the public weights are too large to be read for it."""
    state = file.stat()
    return [state.st_size, state.st_mtime_ns]


def _digest(track: MotionTrack) -> str:
    arrays = [track.body, track.hands, track.face]
    digest = hashlib.sha256(f"{track.width} {track.height}".encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
