"""What a training sample is made of: videos, cache, clips, dropout."""

import json
import logging
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy.stats import kstest
from training_run import HEIGHT, WIDTH, config_of, make_video, make_videos, on_one_core  # noqa: F401

from unianimate_core import InputError, draw_motion, read_motion
from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.training.cache import Cache, CachedVideo
from unianimate_core.training.conditions import CONDITIONS, draw_present
from unianimate_core.training.config import DropoutConfig
from unianimate_core.training.data import BatchOrder, Samples
from unianimate_core.training.held_out import HeldOutClips, hold_out
from unianimate_core.training.videos import find_sources, prepare_videos
from unianimate_core.video.reading import read_video


def prepare(config):
    return prepare_videos(config.data, Accelerator())


def cached(folder, **changes):
    config = config_of(folder, **changes)
    (source,) = find_sources(config.data.folder)
    return Cache(config.data).get(source)


def pretend(lengths):
    """Videos whose files are never opened."""
    return [CachedVideo(f"video{n}", None, length) for n, length in enumerate(lengths)]


def test_cached_tensors_are_the_videos(tmp_path):
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", width=WIDTH, height=HEIGHT)
    video = cached(tmp_path)
    frames, _ = read_video(tmp_path / "videos" / "a.mp4")
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    expected = load_autoencoder(config_of(tmp_path).data.vae).encode(pixels)
    assert video.frames == 6
    # float16 keeps 11 bits; groups of another size may round otherwise
    torch.testing.assert_close(video.latents([4, 0]), expected[[4, 0]], rtol=2**-10, atol=1e-4)
    assert np.abs(video.picture(3).astype(int) - frames[3]).mean() < 4  # JPEG
    track = read_motion(tmp_path / "videos" / "a.json")
    np.testing.assert_allclose(video.motion([1, 5]).body, track.body[[1, 5]], atol=1e-6)


@pytest.mark.parametrize(("width", "height", "fit"), [(64, 48, "crop"), (32, 96, "crop"), (64, 48, "stretch")])
def test_picture_and_pose_are_fitted_alike(tmp_path, width, height, fit):
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", frames=4, width=width * 2, height=height * 2)
    video = cached(tmp_path, **{"data.fit": fit, "data.width": 40, "data.height": 48})
    for frame in range(4):
        bright = video.picture(frame).mean(-1) > 170  # the square about the first joint
        y, x = np.argwhere(bright).mean(0) + 0.5
        joint = video.motion([frame]).body[0, 0] * (40, 48)
        assert np.hypot(*(joint - (x, y))) < 1.5


def test_the_cache_is_made_once_and_anew_when_something_changes(tmp_path):
    make_videos(tmp_path / "videos", 1)
    first = cached(tmp_path).path
    written = first.stat().st_mtime_ns
    assert cached(tmp_path).path == first
    assert first.stat().st_mtime_ns == written
    paths = {first, cached(tmp_path, **{"data.width": 24}).path, cached(tmp_path, **{"data.fit": "stretch"}).path}
    (tmp_path / "videos" / "clip0.mp4").unlink()
    (tmp_path / "videos" / "clip0.json").unlink()
    make_video(tmp_path / "videos" / "clip0.mp4", seed=9)
    paths.add(cached(tmp_path).path)
    assert len(paths) == 4


def test_a_damaged_cache_file_is_made_anew(tmp_path):
    make_videos(tmp_path / "videos", 1)
    video = cached(tmp_path)
    before = video.latents([0, 1, 2])
    video.path.write_bytes(video.path.read_bytes()[:100])
    assert torch.equal(cached(tmp_path).latents([0, 1, 2]), before)


def test_a_full_disk_is_no_fault_of_the_videos(tmp_path, monkeypatch):
    make_videos(tmp_path / "videos", 1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unianimate_core.checkpoint.save_file", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        prepare(config_of(tmp_path))
    assert list((tmp_path / "cache").iterdir()) == []


def test_videos_that_cannot_be_used_are_skipped_named_and_counted(tmp_path, caplog):
    folder = tmp_path / "videos"
    make_videos(folder, 6)
    make_videos(folder / "more", 1)
    whole = (folder / "clip1.mp4").read_bytes()
    (folder / "clip1.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "clip2.json").unlink()
    make_video(tmp_path / "longer.mp4", frames=7)
    shutil.copy(tmp_path / "longer.json", folder / "clip3.json")
    (folder / "clip4.json").write_text("[{]")
    make_video(folder / "short.mp4", frames=1)
    caplog.set_level(logging.INFO, "unianimate_core")
    videos = prepare(config_of(tmp_path))
    assert [video.name for video in videos] == ["clip0.mp4", "clip5.mp4", "more/clip0.mp4"]
    for part in (
        "Skipped clip1.mp4: ",
        "Skipped clip2.mp4: there are no poses beside it: give clip2.json",
        "Skipped clip3.mp4: it has 6 frames, its poses clip3.json 7",
        "Skipped clip4.mp4: ",
        "Skipped short.mp4: it has 1 frames, clips take 2 or more",
        "3 videos with 18 frames; 5 skipped",
    ):
        assert part in caplog.text


def test_poses_may_be_a_folder_of_openpose_files(tmp_path):
    folder = tmp_path / "videos"
    make_videos(folder, 1)
    track = cached(tmp_path).motion([0, 5])
    frames = json.loads((folder / "clip0.json").read_text())
    (folder / "clip0.json").unlink()
    (folder / "clip0").mkdir()
    for number, frame in enumerate(frames):
        people = {"people": frame["people"]}  # OpenPose's files do not name the canvas
        (folder / "clip0" / f"clip0_{number}_keypoints.json").write_text(json.dumps(people))
    np.testing.assert_allclose(cached(tmp_path).motion([0, 5]).body, track.body, atol=1e-6)


def test_videos_of_one_name_in_two_folders_keep_their_order(tmp_path):
    for number, folder in enumerate(("b", "a")):
        make_videos(tmp_path / folder, 1, frames=4 + number)
    for folders in (["b", "a"], ["a", "b"]):
        videos = prepare(config_of(tmp_path, **{"data.folder": folders}))
        assert [(video.name, video.frames) for video in videos] == [("clip0.mp4", 5), ("clip0.mp4", 4)]


def test_clip_sees_the_whole_picture_as_in_use(tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", frames=3, width=128, height=48)
    (tmp_path / "clip.bin").write_bytes(b"weights")
    seen = []

    class Clip:
        def encode_image(self, pixels):
            seen.append(pixels)
            return torch.zeros(len(pixels), 1024)

    monkeypatch.setattr("unianimate_core.clip.load_clip", lambda *args, **kwargs: Clip())
    plain = cached(tmp_path)
    video = cached(tmp_path, **{"data.clip": "clip.bin"})
    frames, _ = read_video(tmp_path / "videos" / "a.mp4")
    pixels = torch.cat(seen)
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels.permute(0, 2, 3, 1), frames / 255, atol=1e-6)
    assert torch.equal(video.latents([0, 1, 2]), plain.latents([0, 1, 2]))  # of the cropped picture


def test_a_cached_file_that_is_gone_or_damaged_is_named(tmp_path):
    make_videos(tmp_path / "videos", 1)
    config = config_of(tmp_path)
    samples = Samples(prepare(config), config, BatchOrder(1, 1, 1))
    path = samples.videos[0].path
    for damage in (lambda: path.write_bytes(path.read_bytes()[:200]), path.unlink):
        damage()
        with pytest.raises(InputError) as caught:
            samples[3]
        for part in (str(path), samples.describe(3), "makes it anew"):
            assert part in str(caught.value)


def test_what_is_held_out_depends_on_the_names_alone():
    names = [f"person{n:03d}.mp4" for n in range(200)]
    videos = [CachedVideo(name, None, 9) for name in names]
    trained, held = hold_out(videos, 0.1)
    assert len(held) == 20
    assert [v for v in videos if v in held] == held
    assert [v for v in videos if v not in held] == trained
    assert set(hold_out(videos[::-1], 0.1)[1]) == set(held)
    places = [names.index(video.name) for video in held]
    assert max(places) - min(places) > 100  # from everywhere, not the last ones
    more = videos + [CachedVideo(f"new{n}.mp4", None, 9) for n in range(20)]
    assert len(set(hold_out(more, 0.1)[1]) & set(held)) >= 14
    assert hold_out(videos, 0.0) == (videos, [])
    assert len(hold_out(videos[:3], 0.01)[1]) == 1
    with pytest.raises(InputError, match=r"held_out is 0.5, which leaves none of 1 video"):
        hold_out(videos[:1], 0.5)


def test_held_out_clips_are_always_the_same(tmp_path):
    make_videos(tmp_path / "videos", 2)
    config = config_of(tmp_path)
    videos = prepare(config)
    one, other = HeldOutClips(videos, config), HeldOutClips(videos, config)
    timesteps = [one[number]["timestep"] for number in range(len(one))]
    assert np.array_equal(np.diff(timesteps) // 10, [3] * 31)  # 1000 / 32 apart
    assert 0 < timesteps[0] < timesteps[-1] < 1000
    torch.manual_seed(3)
    for number in (0, 17):
        again = other[number]
        for name in ("latents", "noise"):
            assert torch.equal(one[number][name], again[name])
        assert one[number]["present"] == again["present"]


def test_a_folder_without_usable_videos(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(InputError, match=r"\[data\] folder: there is no folder .*videos"):
        prepare(config)
    (tmp_path / "videos").mkdir()
    with pytest.raises(InputError, match=r"no video in .*videos.*\.mp4"):
        prepare(config)
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"none of the 1 videos in .*videos can be used. a.mp4: there are no poses"):
        prepare(config)


def test_clips_are_equally_spaced_in_order_and_of_one_length_a_step(tmp_path):
    config = config_of(tmp_path, **{"data.frames": [2, 5], "data.stride": [1, 3]})
    samples = Samples(pretend([6, 9, 30]), config, BatchOrder(batch=2, accumulate=2, processes=1))
    lengths, strides, videos = Counter(), Counter(), Counter()
    for step in range(300):
        plans = [samples.plan(4 * step + n) for n in range(4)]
        (length,) = {len(plan.frames) for plan in plans}
        lengths[length] += 1
        for plan in plans:
            (stride,) = set(np.diff(plan.frames))
            strides[stride] += plan.video == 2
            videos[plan.video] += 1
            assert 0 <= plan.frames[0] <= plan.frames[-1] < samples.lengths[plan.video]
            assert 0 <= plan.reference < samples.lengths[plan.video]
            assert 0 <= plan.timestep < 1000
    assert sorted(lengths) == [2, 3, 4, 5]
    assert sorted(strides.keys() - {0}) == [1, 2, 3]
    for counts in (lengths, strides, videos):  # all alike, within five standard deviations
        total, kinds = sum(counts.values()), len(counts)
        assert max(abs(n - total / kinds) for n in counts.values()) < 5 * np.sqrt(total / kinds)


def test_every_frame_and_timestep_is_drawn(tmp_path):
    config = config_of(tmp_path, **{"data.frames": 3, "data.stride": [1, 9]})
    samples = Samples(pretend([8]), config, BatchOrder(1, 1, 1))
    plans = [samples.plan(number) for number in range(20000)]
    assert {frame for plan in plans for frame in plan.frames} == set(range(8))
    assert {plan.reference for plan in plans} == set(range(8))
    timesteps = np.array([plan.timestep for plan in plans])
    assert (timesteps.min(), timesteps.max()) == (0, 999)
    assert abs(timesteps.mean() - 499.5) < 5 * 1000 / np.sqrt(12 * 20000)


@pytest.mark.parametrize("shift", [0.5, 6.0])
def test_shifted_timesteps_have_the_shifted_distribution(tmp_path, shift):
    config = config_of(tmp_path, **{"data.frames": 3, "training.timestep_shift": shift})
    samples = Samples(pretend([30]), config, BatchOrder(1, 1, 1))
    drawn = [samples.plan(number).timestep / 1000 for number in range(4000)]
    assert kstest(drawn, lambda t: t / (shift - (shift - 1) * t)).pvalue > 1e-3  # the inverse of s t / (1 + (s - 1) t)
    assert max(drawn) < 1


def test_clips_only_come_from_videos_that_are_long_enough(tmp_path):
    config = config_of(tmp_path, **{"data.frames": [2, 50], "data.stride": 2})
    samples = Samples(pretend([2, 5, 12]), config, BatchOrder(1, 1, 1))
    for number in range(200):
        plan = samples.plan(number)
        assert len(plan.frames) <= samples.lengths[plan.video]
        assert plan.frames[-1] < samples.lengths[plan.video]
    assert max(len(samples.plan(number).frames) for number in range(200)) == 12


def test_a_sample_is_what_its_plan_says(tmp_path):
    make_videos(tmp_path / "videos", 2)
    changes = {f"dropout.{name}": 1.0 for name in ("all_kept",)} | dict.fromkeys(
        ("dropout.all_dropped", "dropout.from_reference", "dropout.from_first_frame"), 0
    )
    config = config_of(tmp_path, **changes)
    samples = Samples(prepare(config), config, BatchOrder(1, 1, 1))
    plan, sample = samples.plan(5), samples[5]
    video = samples.videos[plan.video]
    frames = len(plan.frames)
    torch.testing.assert_close(sample["latents"], video.latents(plan.frames).transpose(0, 1))
    poses = draw_motion(read_motion(tmp_path / "videos" / video.name.replace("mp4", "json")), WIDTH, HEIGHT)
    conditions = sample["conditions"]
    assert np.array_equal(conditions["pose"].permute(0, 2, 3, 1), poses[plan.frames])
    assert np.array_equal(conditions["reference_pose"].permute(1, 2, 0), poses[plan.reference])
    assert torch.equal(conditions["reference"], video.latents([plan.reference])[0])
    assert np.array_equal(conditions["first_frame"].permute(1, 2, 0), video.picture(plan.frames[0]))
    assert sample["noise"].shape == (4, frames, HEIGHT // 8, WIDTH // 8)
    assert "image" not in conditions
    assert video.name in samples.describe(5)


def test_noise_has_an_offset_for_each_channel_and_frame(tmp_path):
    make_videos(tmp_path / "videos", 1)
    config = config_of(tmp_path)
    samples = Samples(prepare(config), config, BatchOrder(1, 1, 1))
    noise = [samples[number]["noise"] for number in range(400)]
    pixels = torch.cat([n.flatten() for n in noise])
    means = torch.cat([n.mean(dim=(2, 3)).flatten() for n in noise])
    cells = HEIGHT * WIDTH // 64
    assert float(pixels.var()) == pytest.approx(1 + 0.1**2, abs=0.05)
    assert float(means.var()) == pytest.approx(1 / cells + 0.1**2, rel=0.15)


def test_samples_depend_on_seed_and_number_alone(tmp_path):
    make_videos(tmp_path / "videos", 2)
    config = config_of(tmp_path)
    videos = prepare(config)
    one, other = (Samples(videos, config, BatchOrder(2, 1, 1)) for _ in range(2))
    torch.manual_seed(1)
    late = [one[number] for number in (7, 3)]
    torch.manual_seed(2)
    np.random.seed(3)
    for sample, number in zip(late, (7, 3), strict=True):
        again = other[number]
        assert torch.equal(sample["noise"], again["noise"])
        assert torch.equal(sample["latents"], again["latents"])
        assert sample["timestep"] == again["timestep"]
        assert sample["present"] == again["present"]
    reseeded = Samples(videos, config_of(tmp_path, seed=8), BatchOrder(2, 1, 1))
    assert not torch.equal(reseeded[3]["noise"], late[1]["noise"])


def test_each_process_takes_its_part_of_each_batch():
    order = BatchOrder(batch=2, accumulate=2, processes=3)
    parts = [list(order.batches(rank, start=5, steps=7)) for rank in range(3)]
    assert parts[1] == [[62, 63], [68, 69], [74, 75], [80, 81]]
    assert sorted(number for part in parts for batch in part for number in batch) == list(range(60, 84))
    # the same steps as one process with all of it at once
    assert next(iter(BatchOrder(12, 1, 1).batches(0, 5, 7))) == list(range(60, 72))


def test_dropout_shares():
    config = DropoutConfig(
        image=0.2,
        pose=0.1,
        reference=0.5,
        reference_pose=0.7,
        first_frame=0.9,
        all_dropped=0.15,
        all_kept=0.1,
        from_reference=0.2,
        from_first_frame=0.05,
    )
    random = np.random.default_rng(0)
    count = 40000
    drawn = Counter(tuple(draw_present(config, random).items()) for _ in range(count))
    probabilities = Counter()
    fixed = {
        (0, 0, 0, 0, 0): 0.15,
        (1, 1, 1, 1, 1): 0.1,
        (1, 1, 1, 1, 0): 0.2,  # a clip from a reference picture
        (1, 1, 0, 0, 1): 0.05,  # a clip from its first frame
    }
    kept = (0.8, 0.9, 0.5, 0.3, 0.1)  # image, pose, reference, reference pose, first frame
    for case in np.ndindex(2, 2, 2, 2, 2):
        independent = np.prod([k if present else 1 - k for k, present in zip(kept, case, strict=True)])
        key = tuple(zip(("image", "pose", "reference", "reference_pose", "first_frame"), map(bool, case), strict=True))
        probabilities[key] = fixed.get(case, 0) + 0.5 * independent
    assert set(drawn) <= set(probabilities)
    for key, p in probabilities.items():
        assert abs(drawn[key] - count * p) < 5 * np.sqrt(count * p * (1 - p)) + 1


def test_clip_sees_the_first_frame_where_that_is_the_users_picture(tmp_path, monkeypatch):
    config = config_of(tmp_path, **{"data.clip": "clip.safetensors"})
    samples = Samples(pretend([9]), config, BatchOrder(1, 1, 1))
    seen = {}
    monkeypatch.setattr(CachedVideo, "image", lambda self, index: torch.tensor(index))
    monkeypatch.setattr(CachedVideo, "latents", lambda self, index: torch.zeros(len(index), 4, 3, 2))
    monkeypatch.setattr(CachedVideo, "picture", lambda self, index: np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    for number in range(200):
        plan = samples.plan(number)
        plan.present.update(pose=False, reference_pose=False)
        key = plan.present["first_frame"], plan.present["reference"]
        image = int(samples.conditions(plan)["image"])
        seen.setdefault(key, []).append((image == plan.frames[0], image == plan.reference))
    assert all(first for first, _ in seen[True, False])
    for key in ((True, True), (False, True), (False, False)):
        assert all(reference for _, reference in seen[key])
    assert set(CONDITIONS) == set(plan.present)
