"""The command `unianimate animate`."""

from __future__ import annotations

from dataclasses import replace

from .animate_options import CLIP_FRAMES, SEGMENT_FRAMES, AnimateOptions
from .animate_work import Work
from .console import command_of, note, parse_size
from .diffusion.noise import CLIP_PRIOR, LONG_VIDEO_PRIOR
from .errors import InputError
from .model_options import ModelOptions, choose_models


def run(options: AnimateOptions) -> None:
    """Animate a picture by a motion.

    A long video is made segment by segment; what is finished stays in a folder NAME.partial until the video is whole,
    and after an interruption the same command goes on from there.
    """
    models = choose_models(options.checkpoint, options.vae, options.clip, options.dtype, options.device)
    prepare(options, models).make()


animate = command_of(AnimateOptions, run)


def prepare(options: AnimateOptions, models: ModelOptions) -> Work:
    """Read and check all that a video is made of; what it can be told of the choices that were left open is told.

    Args:
        options: Of the command.
        models: Those that it names; batches share theirs.

    Raises:
        InputError: Something cannot be used. Nothing has been written.
    """
    from .animate import Settings
    from .long_video import Chaining
    from .pose import align_motion, read_motion
    from .pose.cleaning import trim
    from .segment_folder import SegmentFolder
    from .video import VideoWriter, read_picture

    if options.align is not None and options.reference_pose is None:
        raise InputError("--align needs --reference-pose: find it with `unianimate pose PICTURE`")
    width, height = parse_size(options.size or models.size, "--size")
    picture = read_picture(options.reference)
    canvas = None if options.canvas is None else parse_size(options.canvas, "--canvas")
    track = read_motion(options.motion, options.person, canvas)
    standing = None if options.reference_pose is None else read_motion(options.reference_pose)
    start, left = options.start, len(track) - options.start
    count = min(CLIP_FRAMES, left) if options.frames is None else _parse_frames(options.frames) or left
    if options.align is not None:
        track, start = align_motion(trim(track, start, count), standing, options.align.name), 0
    segment, most = options.segment, SEGMENT_FRAMES[models.small]
    if segment is None:
        segment = most if count > most and options.window is None else 0
    long = 0 < segment < count or options.window is not None
    prior = options.noise_prior
    settings = Settings(
        width,
        height,
        count,
        start,
        steps=options.steps,
        guidance=models.guidance if options.guidance is None else options.guidance,
        prior=prior if prior is not None else LONG_VIDEO_PRIOR if long else CLIP_PRIOR,
        seed=options.seed,
        fit=options.fit.value,
        window=options.window,
        overlap=options.overlap,
        window_weights=options.window_weights.value,
        windows_at_once=options.windows_at_once,
    )
    settings.check()
    settings.check_motion(track)
    chaining = Chaining(
        segment or max(2, count),
        options.shared if segment else 1,
        options.last.value,
        options.segment_prior.value,
        options.colours.value,
    )
    longest = max(part.length for part in chaining.plan(count))
    kept = SegmentFolder(options.output)
    codec = None if options.codec is None else options.codec.value
    video = VideoWriter(
        options.output,
        width,
        height,
        options.fps,
        options.overwrite,
        codec=codec,
        audio=options.audio,
        partial=kept.unfinished,
    )
    if video.sound is not None:
        video.sound.check_length(count / options.fps)
    models.check_memory(replace(settings, frames=longest))
    work = Work(models, settings, chaining, picture, track, standing, kept, video)
    kept.check(work.made_with(), options.overwrite)

    if models.small:
        note("No --checkpoint given: using the small model that comes with the package.")
    elif models.clip is None:
        note("No --clip given: the picture's CLIP embedding is left out, the likeness may suffer.")
    if standing is None:
        note("No --reference-pose given: taking the motion's first pose as the picture's.")
    if lost := int((~track[start : start + count].present).sum()):
        note(f"{lost} of {count} frames of the motion show no person: their pose picture is black.")
    if long and options.segment is None and options.window is None:
        note(f"{count} frames are more than {most}: making segments of {segment} (--segment).")
    return work


def _parse_frames(text: str) -> int:
    """The option's number; 0 for all."""
    try:
        return 0 if text.lower() == "all" else int(text)
    except ValueError:
        raise InputError(f"--frames is {text!r}: write a number, or all") from None
