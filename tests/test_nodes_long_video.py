"""Long videos in a real ComfyUI: chained as in the library, going on where a run stopped, in windows."""

import re
import wave

import av
import numpy as np
import pytest
import torch
from comfy_server import PromptFailed, PromptInterrupted
from einops import rearrange
from graphs import (
    ASSETS,
    DANCE,
    HEIGHT,
    SMALL_VAE,
    TOKENS,
    WIDTH,
    exact,
    graph,
    images,
    latents,
    long_video,
    picture_of_working_size,
)
from synthetic import golden_weights, relative_error

from unianimate_core import Conditions, MotionTrack, draw_motion, load_unet, noise_prior, offset_noise, sample
from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.pose import read_pose_frames
from unianimate_core.video import VideoWriter, read_video

TO_FILE = "UniAnimateLongVideoToFile"
PARTS = ("conditioning", "guider", "noise", "sampler", "decode")


@pytest.fixture(scope="module")
def library():
    """The network, the autoencoder, and the conditions of `graph`."""
    track = MotionTrack.from_pose_keypoints(read_pose_frames(DANCE))
    drawn = rearrange(torch.from_numpy(draw_motion(track[:32], WIDTH, HEIGHT)), "f h w c -> f c h w") / 255
    autoencoder = load_autoencoder(ASSETS / "vae" / SMALL_VAE)
    picture = rearrange(torch.from_numpy(picture_of_working_size()) / 255, "h w c -> 1 c h w")
    reference = autoencoder.encode(picture)
    return load_unet(golden_weights()), autoencoder, drawn, reference


def segment(library, start, length, seed, first_frame=None, steps=4, padding=0, **settings):
    """One segment's latents by the library, over the padding the last pose before it held: f 4 h w."""
    unet, _, drawn, reference = library
    conditions = Conditions(
        text=TOKENS[None],
        pose=drawn[None, np.minimum(np.arange(start, start + length), start + length - padding - 1)],
        reference=reference,
        reference_pose=drawn[:1],
        first_frame=first_frame,
    )
    generator = torch.Generator().manual_seed(seed)
    noise = offset_noise((1, 4, length, HEIGHT // 8, WIDTH // 8), generator)
    x = sample(unet, noise_prior(reference, noise, 939), conditions, steps, 2.5, **settings)
    return rearrange(x, "1 c f h w -> f c h w")


def chained(library, segments, **settings):
    """Segments (start, length, shared) by the library, each as frames f h w 3, the shared ones cross-faded."""
    made = []
    for number, (start, length, shared) in enumerate(segments):
        first = rearrange(made[-1][-shared:][:1], "1 h w c -> 1 c h w") if made else None
        x = segment(library, start, length, 3 + number, first, **settings)
        frames = rearrange(torch.cat(list(library[1].decode_groups(x))), "f c h w -> f h w c")
        for place in range(shared):
            share = place / shared
            frames[place] = (1 - share) * made[-1][place - shared] + share * frames[place]
        made.append(frames)
    return made


def samplers(run):
    """Numbers of the segments that were sampled."""
    found = (re.fullmatch(r"20\.0\.0\.segment(\d+)(\.sampler)?", node) for node in run.executed)
    return [int(match[1]) for match in found if match]


def frames_of(comfy, run):
    """Frames of the one video that a run wrote: uint8 f h w 3."""
    (file,) = comfy.output_files(run)
    return read_video(file)[0]


def test_segments_are_chained_and_joined_as_in_the_library(comfy, library):
    run = comfy.queue(long_video(graph()))
    first, second, third = chained(library, [(2, 4, 0), (5, 4, 1), (7, 4, 2)])
    expected = torch.cat((first[:3], second[:2], third))
    assert relative_error(images(comfy), expected) < 1e-3
    (plan,) = run.outputs["21"]["text"]
    assert plan.splitlines()[2] == "segment 3: frames 7 to 10, 2 of them shared, seed 5"


@pytest.mark.parametrize("node", ["UniAnimateLongVideo", TO_FILE])
def test_a_segment_goes_on_from_the_cross_faded_frame(comfy, library, node):
    run = comfy.queue(long_video(graph(), node, length=10, segment_length=5, shared_frames=3))
    # The second fades over 4-6, the third goes on from 6; it fades over 6-8, the last goes on from 7.
    segments = chained(library, [(2, 5, 0), (4, 5, 3), (6, 5, 3), (7, 5, 4)])
    expected = torch.cat((segments[0][:2], segments[1][:2], segments[2][:1], segments[3]))
    check(comfy, run, node, expected)


@pytest.mark.parametrize("node", ["UniAnimateLongVideo", TO_FILE])
def test_padding_holds_the_videos_last_pose_where_the_motion_goes_on(comfy, library, node):
    run = comfy.queue(long_video(graph(), node, length=5, last_segment="pad"))
    (first,) = chained(library, [(2, 4, 0)])
    start = rearrange(first[-1:], "1 h w c -> 1 c h w")
    padded = library[1].decode(segment(library, 5, 4, 4, start, padding=2))
    check(comfy, run, node, torch.cat((first, rearrange(padded, "f c h w -> f h w c")[1:2])))


def check(comfy, run, node, expected):
    """A run made frames f h w 3: exactly in memory; in files, which go on from 8 bits, nearly."""
    if node == TO_FILE:
        assert np.abs(frames_of(comfy, run) - expected.numpy() * 255).max() < 3
    else:
        assert relative_error(images(comfy), expected) < 1e-3


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        ({"last_segment": "shorten"}, 9),
        ({"last_segment": "pad", "length": 8}, 8),
        ({"length": 3}, 3),
        ({"length": 0, "start_frame": 274, "last_segment": "pad"}, 6),  # poses end, too
        ({"segment_seeds": "2: 77", "segment_length": 8}, 9),
    ],
    ids=str,
)
def test_as_many_frames_as_asked_for_whatever_the_last_segment(comfy, settings, frames):
    comfy.queue(long_video(graph(), steps=1, **settings))
    assert len(images(comfy)) == frames


def test_by_hand_with_the_same_nodes_gives_the_same_bits(comfy):
    comfy.queue(long_video(graph(), length=7))
    chain = images(comfy)
    prompt = exact(graph(length=4, noise_prior=939), steps=4)
    del prompt["14"]
    prompt["30"] = {"class_type": "VAEDecode", "inputs": {"samples": ["13", 0], "vae": ["2", 0]}}
    more = {"continue_from": ["30", 0], "start_frame": ["7", 3], "shared_frames": 1}
    prompt["31"] = {"class_type": "UniAnimateConditioning", "inputs": prompt["7"]["inputs"] | more}
    guider = {"model": ["1", 0], "positive": ["31", 0], "negative": ["31", 1], "cfg": 2.5}
    prompt["32"] = {"class_type": "CFGGuider", "inputs": guider}
    prompt["33"] = {"class_type": "UniAnimateNoise", "inputs": {"noise_seed": 4, "offset": 0.1}}
    sampler = prompt["13"]["inputs"] | {"guider": ["32", 0], "noise": ["33", 0], "latent_image": ["31", 2]}
    prompt["34"] = {"class_type": "SamplerCustomAdvanced", "inputs": sampler}
    prompt["35"] = {"class_type": "VAEDecode", "inputs": {"samples": ["34", 0], "vae": ["2", 0]}}
    join = {"before": ["30", 0], "after": ["35", 0], "shared_frames": ["31", 4]}
    prompt["36"] = {"class_type": "UniAnimateJoinSegments", "inputs": join}
    prompt["37"] = {"class_type": "ProbeImages", "inputs": {"images": ["36", 0], "name": "by_hand.safetensors"}}
    comfy.queue(prompt)
    assert torch.equal(images(comfy, "by_hand.safetensors"), chain)


def forget(comfy):
    """Let the server forget all results."""
    marker = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 7}}}
    marker["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    comfy.queue(marker)
    comfy.free(unload=False)
    for _ in range(100):
        if comfy.queue(marker).executed:
            return
    raise AssertionError("the server does not forget")


@pytest.mark.parametrize("node", ["UniAnimateLongVideo", TO_FILE])
def test_a_cancelled_run_goes_on_with_the_segment_it_was_in(comfy, node):
    prompt = long_video(graph(), node, steps=10, noise_seed=100, length=10)

    def result(run):
        return torch.from_numpy(frames_of(comfy, run)) if node == TO_FILE else images(comfy)

    whole = result(comfy.queue(prompt))
    forget(comfy)
    written = set((comfy.base / "output").iterdir())
    handle = comfy.start(prompt)
    handle.wait_until(lambda run: samplers(run) == [1, 2, 3] and len(run.progress.get(run.executed[-1], ())) > 2)
    comfy.interrupt()
    with pytest.raises(PromptInterrupted):
        handle.wait()
    assert samplers(handle.run) == [1, 2, 3]
    assert set((comfy.base / "output").iterdir()) == written, "half a video"
    again = comfy.queue(prompt)
    assert samplers(again) == [3]
    assert torch.equal(result(again), whole)
    assert not samplers(comfy.queue(prompt))


@pytest.mark.parametrize("node", ["UniAnimateLongVideo", TO_FILE])
def test_a_change_makes_anew_what_depends_on_it_alone(comfy, node):
    settings = {"last_segment": "shorten", "length": 10, "steps": 2, "noise_seed": 200}
    assert samplers(comfy.queue(long_video(graph(), node, **settings))) == [1, 2, 3]
    assert samplers(comfy.queue(long_video(graph(), node, **settings | {"length": 12}))) == [4]
    assert samplers(comfy.queue(long_video(graph(), node, **settings, segment_seeds="3: 5"))) == [3]


def test_a_segment_that_failed_is_tried_again_alone(comfy):
    prompt = long_video(graph(), model="40", steps=2, noise_seed=300)
    prompt["40"] = {"class_type": "ProbeFail", "inputs": {"model": ["1", 0], "forward": 3}}
    with pytest.raises(PromptFailed, match="the probe fails") as failure:
        comfy.queue(prompt)
    assert failure.value.node_id == "20"
    assert samplers(comfy.queue(prompt)) == [2, 3]


def test_the_file_is_the_video_and_other_nodes_can_take_it(comfy):
    prompt = long_video(graph(), TO_FILE, length=7)
    prompt["50"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["20", 0]}}
    prompt["51"] = {"class_type": "ProbeImages", "inputs": {"images": ["50", 0], "name": "file.safetensors"}}
    frames = frames_of(comfy, comfy.queue(prompt))
    assert np.abs(frames - images(comfy, "file.safetensors").numpy() * 255).max() < 1.5  # core rounds in its own way
    comfy.queue(long_video(graph(), length=7))
    # Files go on from 8-bit frames, as the video shows them: the first segment is the same, the second nearly.
    difference = np.abs(frames / 255 - images(comfy).numpy()) * 255
    assert difference[:4].max() < 0.51
    assert difference.max() < 3


def test_keypoints_are_drawn_segment_by_segment(comfy):
    videos = []
    for number, source in (("5", "drawn"), ("4", "keypoints")):
        prompt = long_video(graph(), TO_FILE, length=7, filename_prefix=source, driving_pose=[number, 0])
        prompt["5"]["inputs"]["fit"] = "crop"
        videos.append(frames_of(comfy, comfy.queue(prompt)))
    assert np.array_equal(*videos)


@pytest.mark.parametrize(("chosen", "suffix"), [("mp4, H.264", ".mp4"), ("gif", ".gif")])
def test_formats(comfy, chosen, suffix):
    run = comfy.queue(long_video(graph(), TO_FILE, length=7, steps=1, format=chosen))
    (file,) = comfy.output_files(run)
    assert file.suffix == suffix
    assert read_video(file)[0].shape == (7, HEIGHT, WIDTH, 3)


@pytest.fixture(scope="module")
def tone(comfy):
    """A node that loads a video of 7 frames with a tone."""
    with wave.open(str(comfy.base / "tone.wav"), "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(48000)
        tone.writeframes((9000 * np.sin(np.arange(12000) / 20)).astype("<i2").tobytes())
    with VideoWriter(comfy.base / "input" / "tone.mp4", 64, 96, audio=comfy.base / "tone.wav") as writer:
        writer.write(torch.zeros(7, 96, 64, 3))
    return {"60": {"class_type": "LoadVideo", "inputs": {"file": "tone.mp4"}}}


def test_the_sound_of_the_driving_video_is_written_along(comfy, tone):
    settings = {"length": 7, "start_frame": 0, "steps": 1, "format": "mp4, H.264", "sound_of": ["60", 0]}
    run = comfy.queue(long_video(graph(), TO_FILE, **settings) | tone)
    (file,) = comfy.output_files(run)
    with av.open(str(file)) as video:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in video.decode(audio=0)])
    assert samples.std() > 0.1
    assert len(read_video(file)[0]) == 7


def test_sound_of_another_length_is_refused_before_the_first_segment(comfy, tone):
    prompt = long_video(graph(), TO_FILE, length=20, start_frame=0, format="mp4, H.264", sound_of=["60", 0])
    with pytest.raises(PromptFailed, match=r"tone\.mp4 lasts 0\.2\d s, the video 0\.67 s") as failure:
        comfy.queue(prompt | tone)
    assert failure.value.node_type == TO_FILE


def windows(model="1", **settings):
    """Core's Context Windows, as the library's: static, averaged, nothing in front of a window."""
    chosen = {"context_length": 8, "context_overlap": 2, "context_schedule": "standard_static", "context_stride": 1}
    chosen |= {"closed_loop": False, "fuse_method": "flat", "dim": 0, "freenoise": False}
    chosen |= {"cond_retain_index_list": "", "split_conds_to_windows": False, "latent_retain_index_list": ""}
    chosen |= {"causal_window_fix": False} | settings
    return {"41": {"class_type": "ContextWindowsManual", "inputs": {"model": [model, 0]} | chosen}}


@pytest.mark.parametrize("frames", [20, 17])
def test_cores_context_windows_are_the_librarys(comfy, library, frames):
    prompt = exact(graph(length=frames, noise_prior=939), model="41", steps=4) | windows()
    expected = segment(library, 2, frames, 3, window=8, overlap=2)
    assert relative_error(latents(comfy, comfy.queue(prompt)), expected) < 1e-3


def test_windows_encode_their_poses_once_and_follow_any_schedule(comfy):
    def encodings(**settings):
        watch = {"class_type": "ProbeWatch", "inputs": {"model": ["1", 0], "short_of_memory": False}}
        report = {"class_type": "ProbeReport", "inputs": {"model": ["41", 0], "after": ["13", 0]}}
        prompt = exact(graph(length=20), model="41", steps=4) | windows("42", **settings)
        return comfy.queue(prompt | {"42": watch, "43": report}).outputs["43"]["encodings"]

    assert encodings() == [3]
    assert encodings(causal_window_fix=True, fuse_method="pyramid") == [3]
    (uniform,) = encodings(context_schedule="standard_uniform")
    assert 3 <= uniform <= 12


def test_windows_inside_the_segments_of_a_chain(comfy, library):
    settings = {"length": 23, "segment_length": 12, "last_segment": "shorten"}
    comfy.queue(long_video(graph(), model="41", **settings) | windows(context_length=6))
    first, second = chained(library, [(2, 12, 0), (13, 12, 1)], window=6, overlap=2)
    assert relative_error(images(comfy), torch.cat((first, second[1:]))) < 1e-3


def test_colours_are_held_to_the_reference_or_the_first_segment(comfy):
    def spread(**settings):
        comfy.queue(long_video(graph(), length=7, **settings))
        pictures = images(comfy)
        return pictures, pictures[-3:].mean((0, 1, 2))

    free, last = spread()
    held, held_last = spread(hold_colours="reference")
    reference = torch.from_numpy(picture_of_working_size()).float().mean((0, 1)) / 255
    assert (held_last - reference).abs().max() < 0.02 < (last - reference).abs().max()
    first = free[:4].mean((0, 1, 2))
    like_first, like_first_last = spread(hold_colours="first-segment")
    assert (like_first_last - first).abs().max() < max(0.02, float((last - first).abs().max()))
    run = comfy.queue(long_video(graph(), TO_FILE, length=7, hold_colours="first-segment"))
    assert np.abs(frames_of(comfy, run) / 255 - like_first.numpy()).mean() < 0.01
    assert torch.equal(like_first[:4], free[:4])
    assert not torch.equal(held[:4], free[:4])


def test_colours_are_held_alike_in_memory_and_in_files(comfy):
    settings = {"length": 5, "last_segment": "pad", "hold_colours": "reference", "reference_image": ["70", 0]}
    batch = {"image1": ["3", 0], "image2": ["71", 0]}  # the first of several pictures is the reference
    more = {
        "70": {"class_type": "ImageBatch", "inputs": batch},
        "71": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
    }
    comfy.queue(long_video(graph(), **settings) | more)
    frames = frames_of(comfy, comfy.queue(long_video(graph(), TO_FILE, **settings) | more))
    difference = np.abs(images(comfy).numpy() * 255 - frames).mean((1, 2, 3))
    assert difference.max() < 0.02  # of 255: contrast is raised after a value was rounded the other way


def test_joining_cross_fades(comfy):
    def colour(number, value, frames):
        inputs = {"width": 8, "height": 8, "batch_size": frames, "color": value}
        return {number: {"class_type": "EmptyImage", "inputs": inputs}}

    join = {"before": ["1", 0], "after": ["2", 0], "shared_frames": 4}
    prompt = colour("1", 0x000000, 5) | colour("2", 0xFFFFFF, 6)
    prompt["3"] = {"class_type": "UniAnimateJoinSegments", "inputs": join}
    prompt["4"] = {"class_type": "ProbeImages", "inputs": {"images": ["3", 0], "name": "joined.safetensors"}}
    comfy.queue(prompt)
    assert images(comfy, "joined.safetensors")[:, 0, 0, 0].tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    prompt["3"]["inputs"]["shared_frames"] = 6
    with pytest.raises(PromptFailed, match="6 frames are shared, but the segments have 5 and 6: lower shared_frames"):
        comfy.queue(prompt)
    prompt["2"]["inputs"]["width"] = 16
    with pytest.raises(PromptFailed, match="the segments are 8 x 8 and 16 x 8: make both in one size"):
        comfy.queue(prompt)
