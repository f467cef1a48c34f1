"""Long videos: chained segments against the same made by hand with `sample`, and what is done against drift."""

import dataclasses

import numpy as np
import pytest
import torch
from peak import peak_bytes
from small_networks import BlockAutoencoder, as_frames, small_unet

from unianimate_core import Conditions, InputError, MotionTrack, draw_motion, noise_prior, offset_noise, sample
from unianimate_core.animate import Animation, Settings, animate
from unianimate_core.long_video import Chaining, LongVideo, Made, animate_long, segment_seed

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings(width=32, height=48, frames=9, start=1, steps=2, guidance=2.0, prior=939, seed=5)
VAE = BlockAutoencoder()


def track(frames):
    random = np.random.default_rng(0)
    steps = random.normal(0, 0.01, (frames, 20, 2)).cumsum(0)
    return MotionTrack(body=random.uniform(0.2, 0.8, (20, 2)) + steps, width=64, height=96)


PICTURE = torch.rand(48, 32, 3, generator=torch.Generator().manual_seed(0))
MOTION = track(12)
UNET = small_unet()


def animation(motion=MOTION, **change):
    return Animation(UNET, VAE, PICTURE, motion, dataclasses.replace(SETTINGS, **change))


def made(chaining, motion=MOTION, **change):
    return torch.cat(list(animate_long(animation(motion, **change), chaining)))


def by_hand(poses, seed, first_frame=None, prior="reference", **windows):
    """A segment as `sample` makes it: uint8 f H W 3 and its latents f 4 h w."""
    drawn = torch.from_numpy(draw_motion(MOTION[[1 + pose for pose in poses]], 32, 48)).permute(0, 3, 1, 2) / 255
    standing = torch.from_numpy(draw_motion(MOTION[1], 32, 48)).permute(0, 3, 1, 2) / 255
    reference = VAE.encode(PICTURE.permute(2, 0, 1)[None])
    start = None if first_frame is None else first_frame.permute(2, 0, 1)[None] / 255
    x_T = offset_noise((1, 4, len(poses), 6, 4), torch.Generator().manual_seed(seed))
    if prior is not None:
        x_T = noise_prior(reference if isinstance(prior, str) else prior, x_T, 939)
    conditions = Conditions(pose=drawn[None], reference=reference, reference_pose=standing, first_frame=start)
    x0 = sample(UNET, x_T, conditions, 2, 2.0, **windows)[0].transpose(0, 1)
    return as_frames(VAE.decode(x0)), x0


def seeds(number):
    """NumPy's way to many streams from one seed; the first segment's is the video's own."""
    return 5 if number == 0 else int(np.random.SeedSequence([5, number]).generate_state(1, np.uint64)[0])


def test_segments_share_one_frame():
    """9 frames in segments of 4: 0-3, 3-6, 6-8."""
    first, _ = by_hand(range(4), seeds(0))
    second, _ = by_hand(range(3, 7), seeds(1), first[-1])
    third, _ = by_hand(range(6, 9), seeds(2), second[-1])
    expected = torch.cat((first, second[1:], third[1:]))
    assert torch.equal(made(Chaining(4)), expected)
    # the start frame steers: without it the second segment is another
    assert not torch.equal(by_hand(range(3, 7), seeds(1))[0], second)


def test_several_shared_frames_are_cross_faded():
    """7 frames in segments of 4 that share 2: 0-3, 2-5, 4-6. Frame 2 is the first segment's, frame 3 half and half."""
    first, _ = by_hand(range(4), seeds(0))
    second, _ = by_hand(range(2, 6), seeds(1), first[2])
    third, _ = by_hand(range(4, 7), seeds(2), second[2])

    def faded(before, after):
        return (before.double() + after.double()) / 2

    got = made(Chaining(4, shared=2), frames=7)
    exact = [*first[:3].double(), faded(first[3], second[1]), second[2].double(), faded(second[3], third[1])]
    exact.append(third[2].double())
    error = (got.double() - torch.stack(exact)).abs()
    assert error.max() <= 0.5 + 1e-6
    assert (error[[0, 1, 2, 4, 6]] == 0).all()


def test_a_last_segment_that_overlaps_more_or_is_cut():
    first, _ = by_hand(range(4), seeds(0))
    padded, _ = by_hand([3, 4, 5, 5], seeds(1), first[3])
    assert torch.equal(made(Chaining(4, last="pad"), frames=6), torch.cat((first, padded[1:3])))
    overlapping, _ = by_hand(range(2, 6), seeds(1), first[2])
    got = made(Chaining(4, last="overlap"), frames=6)
    assert torch.equal(got[[0, 1, 2, 4, 5]], torch.cat((first[:3], overlapping[2:])))


def test_what_the_prior_of_later_segments_is_made_of():
    first, latents = by_hand(range(4), seeds(0))
    alone, _ = by_hand(range(3, 7), seeds(1), first[-1], prior=None)
    assert torch.equal(made(Chaining(4, prior="nothing"), frames=7), torch.cat((first, alone[1:])))
    # the latent as it was sampled, not that of the picture
    onwards, _ = by_hand(range(3, 7), seeds(1), first[-1], prior=latents[-1:])
    assert torch.equal(made(Chaining(4, prior="start-frame"), frames=7), torch.cat((first, onwards[1:])))


def test_windows_within_segments():
    windows = {"window": 3, "overlap": 1, "window_weights": "pyramid"}
    first, _ = by_hand(range(5), seeds(0), **windows)
    second, _ = by_hand(range(4, 9), seeds(1), first[-1], **windows)
    assert torch.equal(made(Chaining(5), **windows), torch.cat((first, second[1:])))


@pytest.mark.parametrize("length", [9, 32])
def test_a_motion_of_one_segment_is_a_clip(length):
    clip = torch.cat(list(animate(UNET, VAE, PICTURE, MOTION, SETTINGS)))
    assert torch.equal(made(Chaining(length)), (clip * 255).round().to(torch.uint8))


def test_one_frame():
    assert made(Chaining(4), frames=1).shape == (1, 48, 32, 3)


class Kept(list):
    """Segments in memory, as a folder keeps them."""

    read = list.__getitem__
    add = list.append


@pytest.mark.parametrize("shared", [1, 3])
@pytest.mark.parametrize("colours", ["free", "first-segment"])
@pytest.mark.parametrize("finished", [1, 2, 3])
def test_going_on_from_kept_segments_gives_the_same(finished, colours, shared):
    chaining = Chaining(4, shared=shared, prior="start-frame", colours=colours)
    whole, kept = Kept(), Kept()
    list(LongVideo(animation(frames=11), chaining).segments(whole))
    for _ in zip(range(finished), LongVideo(animation(frames=11), chaining).segments(kept), strict=False):
        pass
    del kept[finished:]
    video = LongVideo(animation(frames=11), chaining)
    new = list(video.segments(kept))
    assert len(kept) == len(whole) == len(video.plan) == len(new) + finished
    for one, other in zip(kept, whole, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.latents, other.latents)


@pytest.mark.parametrize("shared", [1, 2, 3, 5])
@pytest.mark.parametrize("last", ["shorten", "overlap", "pad"])
def test_every_frame_once_and_in_order(shared, last, monkeypatch):
    """Each frame has the number of its pose as its value, whatever segment it is made in."""

    def number(poses):
        return torch.tensor(list(poses)).view(-1, 1, 1, 1).expand(-1, 4, 6, 4) / 255 * 2 - 1

    monkeypatch.setattr(Animation, "latent", lambda self, poses, *_: number(poses))
    for frames in range(1, 12):
        got = made(Chaining(6, shared, last), frames=frames)
        assert got[:, 0, 0, 0].tolist() == list(range(frames))


def test_progress_is_told():
    steps, frames = [], []
    video = LongVideo(animation(), Chaining(4))
    list(video.segments(callback=lambda done, total, _: steps.append((done, total)), decoded=frames.append))
    assert steps == [(1, 2), (2, 2)] * 3
    assert sum(frames) == 4 + 4 + 3


def test_seeds_differ_from_segment_to_segment_and_from_video_to_video():
    assert segment_seed(7, 0) == 7
    found = {segment_seed(seed, number) for seed in (0, 1, 2**64 - 1) for number in range(50)}
    assert len(found) == 150
    assert all(0 <= seed < 2**64 for seed in found)


@pytest.mark.parametrize("colours", ["reference", "first-segment"])
def test_held_colours_do_not_drift(colours, monkeypatch):
    """Frames that grow darker and paler keep the colours that they are held to, and no border shows."""
    picture = VAE.encode(PICTURE.permute(2, 0, 1)[None])

    def drifting(self, poses, *_):
        age = torch.tensor([float(pose) for pose in poses]).view(-1, 1, 1, 1)
        return picture * (1 - age / 200) - age / 200

    monkeypatch.setattr(Animation, "latent", drifting)

    def video(held):
        return made(Chaining(8, colours=held), track(70), frames=64).double() / 255

    def drift(video):
        return (video[-1].mean((0, 1)) - video[0].mean((0, 1))).abs().max()

    free, held = video("free"), video(colours)
    assert drift(free) > 0.1
    assert drift(held) < 0.02
    border = torch.arange(1, 64) % 7 == 1  # onto frames 8, 15, ...
    steps = (held[1:] - held[:-1]).mean((1, 2, 3)).abs()
    assert steps[border].max() < 0.01  # a segment's whole drift at once is 0.02
    assert steps.max() < 0.01


def test_memory_is_that_of_one_segment():
    """Every tensor's bytes are counted; 16 times as many frames take a tenth more at most."""
    long_motion = track(256)

    def peak(frames):
        settings = dataclasses.replace(SETTINGS, frames=frames, start=0, steps=1, guidance=1.0)
        video = Animation(UNET, VAE, PICTURE, long_motion, settings)
        return peak_bytes(lambda: [None for _ in animate_long(video, Chaining(8))])

    few, many = peak(16), peak(256)
    assert many < 1.1 * few


@pytest.mark.parametrize(
    ("change", "chaining", "words"),
    [
        ({}, Chaining(1), "segment length is 1"),
        ({}, Chaining(4, shared=4), "4 shared frames in segments of 4: give 1 to 3"),
        ({}, Chaining(4, shared=0), "0 shared frames"),
        ({}, Chaining(4, last="stretch"), "choose shorten, overlap, pad"),
        ({}, Chaining(4, prior="noise"), "'noise' is unknown: choose reference, start-frame, nothing"),
        ({}, Chaining(4, colours="warm"), "'warm' is unknown: choose free, reference, first-segment"),
        ({"window": 4, "overlap": 4}, Chaining(4), "window 4 with overlap 4"),
        ({"overlap": 2}, Chaining(4), "overlap is 2, but there are no windows"),
        ({"window": 4, "window_weights": "round"}, Chaining(4), "'round' are unknown: choose uniform, pyramid"),
        ({"window": 4, "windows_at_once": 0}, Chaining(4), "windows at once are 0"),
    ],
)
def test_bad_values_are_told_at_once(change, chaining, words):
    with pytest.raises(InputError, match=words):
        animate_long(animation(**change), chaining)


def test_a_start_frame_of_another_size_is_told():
    with pytest.raises(InputError, match="'first_frame' has shape 1 3 40 32, expected 1 3 48 32"):
        animation().latent(range(4), 0, torch.zeros(40, 32, 3))
    kept = Kept([Made(torch.zeros(4, 40, 32, 3, dtype=torch.uint8), torch.zeros(4, 4, 6, 4))])
    with pytest.raises(InputError, match="'first_frame' has shape"):
        list(LongVideo(animation(), Chaining(4)).segments(kept))
