"""`unianimate evaluate` on tiny videos: what it makes, compares, writes, and refuses."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from test_evaluation_metrics import Features

from unianimate_core import InputError, assets, load_unet, read_motion
from unianimate_core.animate import Settings, animate
from unianimate_core.autoencoder import load_autoencoder
from unianimate_core.evaluation.command import evaluate
from unianimate_core.video import VideoWriter, read_video

DANCE = json.loads((Path(__file__).parent.parent / "samples" / "dance.json").read_text())
WIDTH, HEIGHT, FRAMES = 64, 96, 4


pytestmark = pytest.mark.usefixtures("one_thread")


def write(path, frames, poses=True):
    with VideoWriter(path, frames.shape[2], frames.shape[1], 25, overwrite=True, lossless=True) as video:
        video.write(frames)
    if poses:
        path.with_suffix(".json").write_text(json.dumps(DANCE[: len(frames)]))


def moving(seed, frames=FRAMES, width=WIDTH, height=HEIGHT):
    """A smooth picture that glides to the right; its values leave room to be raised by 20."""
    y, x = np.mgrid[:height, :width]
    phase = (np.arange(frames)[:, None, None] + seed) * 2
    channels = [80 + 60 * np.sin((x - phase) / 9 + seed), 100 + 50 * np.cos(y / 11 + phase / 7), 90 + x - phase % 3]
    return np.stack([np.broadcast_to(c, (frames, height, width)) for c in channels], -1).astype(np.uint8)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate(("a", "b")):
        write(folder / f"{name}.mkv", moving(number))
    return folder


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command, small unless told otherwise; returns metrics.json and what was printed."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(evaluate)

    def call(data, out="out", **options):
        making = {} if "predictions" in options else {"size": f"{WIDTH}x{HEIGHT}", "steps": 1}
        given = [(f"--{name.replace('_', '-')}", value) for name, value in (making | options).items()]
        words = [str(part) for name, value in given for part in ((name,) if value is True else (name, value))]
        app([str(data), "-o", str(tmp_path / out), *words], standalone_mode=False)
        return json.loads((tmp_path / out / "metrics.json").read_text()), "".join(capsys.readouterr())

    return call


def test_a_model_is_measured_against_the_truth_and_the_baselines(tmp_path, data, run):
    found, said = run(data, frames=3, seed=7)
    out = tmp_path / "out"
    assert sorted(os.listdir(out)) == [
        "contact_sheet.png",
        "made",
        "metrics.json",
        "metrics.md",
        "plots",
        "side_by_side",
    ]
    assert sorted(os.listdir(out / "plots")) == ["a.png", "b.png", "mean.png"]
    assert sorted(os.listdir(out / "side_by_side")) == ["a.mp4", "b.mp4"]
    assert list(found["means"]) == ["model", "autoencoder", "still", "colour"]
    assert [video["name"] for video in found["videos"]] == ["a", "b"]
    assert found["settings"]["seed"] == 7
    assert torch.__version__.startswith(found["versions"]["torch"].partition("+")[0])
    assert "2 videos, 6 frames of 64 x 96" in said

    # The first video again, by the library.
    truth = moving(0)
    picture = torch.from_numpy(truth[0]) / 255
    track = read_motion(data / "a.json")
    autoencoder = load_autoencoder(assets.SMALL_VAE)
    settings = Settings(WIDTH, HEIGHT, 3, steps=1, guidance=assets.SMALL_GUIDANCE, seed=7)
    groups = animate(load_unet(assets.SMALL_UNET), autoencoder, picture, track, settings, track[0])
    made = (torch.cat(list(groups)) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(read_video(out / "made" / "a.mkv")[0], made)
    rows = found["videos"][0]["rows"]
    decoded = autoencoder.decode(autoencoder.encode(torch.from_numpy(truth[:3]).movedim(-1, 1) / 255)).movedim(1, -1)
    expected = {
        "model": made,
        "autoencoder": (decoded * 255).round().numpy(),
        "still": truth[[0, 0, 0]],
        "colour": np.broadcast_to(truth[:3].mean((0, 1, 2)).round(), truth[:3].shape),
    }
    for row, video in expected.items():
        each = np.abs(video.astype(float) - truth[:3]).mean((1, 2, 3))
        # Decoded in other groups, a few values may round to the next grey level.
        assert rows[row]["per_frame"]["l1"] == pytest.approx(each, abs=1e-3), row
        assert rows[row]["mean"]["l1"] == pytest.approx(each.mean(), abs=1e-3)
        both = [v["rows"][row]["mean"]["ssim"] for v in found["videos"]]
        assert found["means"][row]["ssim"] == pytest.approx(np.mean(both))

    lines = (out / "metrics.md").read_text().splitlines()
    assert "|  | L1 ↓ | L1 (published) ↓ | PSNR ↑ | PSNR* ↑ | SSIM ↑ |" in lines
    assert any(line.startswith(f"| Still reference picture | {found['means']['still']['l1']:.2f} |") for line in lines)
    frames, fps = read_video(out / "side_by_side" / "a.mp4")
    assert (len(frames), frames.shape[2], fps) == (3, 4 * WIDTH, 25)
    assert np.abs(frames[1, -HEIGHT:, 2 * WIDTH : 3 * WIDTH].astype(int) - truth[1]).mean() < 6  # lossy
    assert Image.open(out / "plots" / "mean.png").size[0] > 500
    assert np.asarray(Image.open(out / "contact_sheet.png")).std() > 20


def test_finished_results_stay_and_made_videos_serve_again(tmp_path, data, run, monkeypatch):
    first, _ = run(data, frames=2)
    with pytest.raises(InputError, match=r"metrics\.json exists: .*--overwrite"):
        run(data, frames=2)
    with monkeypatch.context() as patch:
        patch.setattr("unianimate_core.evaluation.sources.animate", pytest.fail)
        again, said = run(data, frames=2, overwrite=True)
    assert "2 videos were kept from before" in said
    assert again["means"] == first["means"]
    other, said = run(data, frames=2, overwrite=True, seed=1)
    assert "kept from before" not in said
    assert other["means"]["model"] != first["means"]["model"]
    assert other["means"]["still"] == first["means"]["still"]
    by_hand, _ = run(data, "by hand", predictions=tmp_path / "out" / "made", frames=2)
    assert by_hand["means"]["predictions"] == other["means"]["model"]


def test_an_evaluation_that_was_stopped_goes_on(data, run, monkeypatch):
    made = []

    def animate_once(*arguments):
        if made:
            raise MemoryError
        made.append(arguments)
        return animate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("unianimate_core.evaluation.sources.animate", animate_once)
        with pytest.raises(MemoryError):
            run(data, frames=2)
    found, said = run(data, frames=2)
    assert "1 videos were kept" in said
    assert len(found["videos"]) == 2


def test_a_made_video_without_its_whole_note_is_made_again(tmp_path, data, run):
    first, _ = run(data, frames=2)
    (tmp_path / "out" / "made" / "a.json").write_text("{")
    (tmp_path / "out" / "made" / "b.mkv").write_bytes(b"cut off")
    again, said = run(data, frames=2, overwrite=True)
    assert "kept from before" not in said
    assert again["means"] == first["means"]


@pytest.mark.parametrize("offset", [0, 5, 20])
def test_predictions_off_by_a_constant(tmp_path, data, run, offset):
    (tmp_path / "made").mkdir()
    for number, name in enumerate("ab"):
        write(tmp_path / "made" / f"{name}.mkv", moving(number) + np.uint8(offset), poses=False)
    found, _ = run(data, predictions=tmp_path / "made")
    ours = found["means"]["predictions"]
    assert list(found["means"]) == ["predictions", "still", "colour"]
    assert ours["l1"] == pytest.approx(offset)
    assert ours["l1_published"] == pytest.approx(offset / (WIDTH * HEIGHT))
    assert ours["psnr_star"] == pytest.approx(20 * math.log10(255 / offset) if offset else 10 * math.log10(255**2 * 12))
    assert (ours["ssim"] == pytest.approx(1)) == (offset == 0)
    assert len(found["videos"][1]["rows"]["predictions"]["per_frame"]["psnr_star"]) == FRAMES


def test_predictions_of_a_stretch_in_another_size(tmp_path, data, run):
    (tmp_path / "made").mkdir()
    for number, name in enumerate("ab"):
        (data / f"{name}.json").unlink()  # poses are not needed
        write(tmp_path / "made" / f"{name}.mkv", moving(number)[1:3, ::2, ::2], poses=False)
    found, _ = run(data, predictions=tmp_path / "made", start=1, frames=2, size="32x48", reference_frame=3)
    assert found["means"]["predictions"]["psnr_star"] > 30
    assert found["videos"][0]["frames"] == 2
    assert found["videos"][0]["size"] == [32, 48]
    half = [Image.fromarray(moving(0)[index]).resize((32, 48), Image.Resampling.BILINEAR) for index in (1, 3)]
    expected = np.abs(np.asarray(half[0], float) - np.asarray(half[1], float)).mean()
    assert found["videos"][0]["rows"]["still"]["per_frame"]["l1"][0] == pytest.approx(expected, abs=0.1)


def test_predictions_that_do_not_fit_are_refused(tmp_path, data, run):
    made = tmp_path / "made"
    made.mkdir()
    write(made / "a.mkv", moving(0), poses=False)
    with pytest.raises(InputError, match="has 1 of 2 videos: no b"):
        run(data, predictions=made)
    assert not (tmp_path / "out").exists()
    write(made / "b.mkv", moving(1)[:3], poses=False)
    with pytest.raises(InputError, match=r"b\.mkv has 3 frames, .*b\.mkv .*has 4"):
        run(data, predictions=made)
    write(made / "b.mkv", moving(1)[:, :80], poses=False)
    with pytest.raises(InputError, match=r"b\.mkv has frames of 64 x 80, .* of 64 x 96"):
        run(data, predictions=made)
    (made / "b.mkv").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"b\.mkv cannot be read as a video"):
        run(data, predictions=made)
    assert os.listdir(tmp_path / "out") == [], "all are read before anything is measured"


def test_what_cannot_be_used_is_skipped_named_and_counted(tmp_path, data, run):
    (data / "corrupt.mp4").write_bytes(b"no video" * 100)
    write(data / "no_poses.mkv", moving(2), poses=False)
    write(data / "other_length.mkv", moving(2))
    (data / "other_length.json").write_text(json.dumps(DANCE[:3]))
    write(data / "short.mkv", moving(2)[:1])
    nobody = [{**frame, "people": frame["people"] if index else []} for index, frame in enumerate(DANCE[:FRAMES])]
    write(data / "unseen.mkv", moving(2))
    (data / "unseen.json").write_text(json.dumps(nobody))
    (data / "notes.txt").write_text("no video")
    found, said = run(data, frames=2, start=1)
    assert [video["name"] for video in found["videos"]] == ["a", "b"]
    reasons = {
        "corrupt.mp4": "cannot be read as a video",
        "no_poses.mkv": "no poses beside it: give no_poses.json, or a folder no_poses",
        "other_length.mkv": "4 frames, its poses other_length.json 3",
        "short.mkv": "has 1 frames, 2 are needed",
        "unseen.mkv": "nobody in the reference frame 0",
    }
    assert list(found["skipped"]) == list(reasons)
    report = (tmp_path / "out" / "metrics.md").read_text()
    assert "## Skipped: 5" in report
    assert "5 videos skipped" in said
    for name, reason in reasons.items():
        assert reason in found["skipped"][name]
        assert f"- {name}: " in report


def test_a_folder_without_usable_videos(tmp_path, data, run):
    for name in "ab":
        (data / f"{name}.mkv").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"none of the 2 videos can be used: .*a\.mkv cannot be read"):
        run(data)
    for name in "ab":
        (data / f"{name}.mkv").unlink()
    with pytest.raises(InputError, match=r"there is no video in .*data: give"):
        run(data)
    with pytest.raises(InputError, match="there is no folder"):
        run(data / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"size": "100x96"}, "width is 100"),
        ({"size": "abc"}, "--size is 'abc'"),
        ({"guidance": "nan"}, "guidance is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"noise_prior": 1000}, "timestep is 1000"),
        ({"start": -1}, "--start is -1"),
        ({"frames": -1}, "--frames is -1"),
        ({"reference_frame": -2}, "--reference-frame is -2"),
        ({"device": "tpu9"}, "--device tpu9"),
        ({"checkpoint": assets.SMALL_UNET}, "--checkpoint and --vae belong together"),
        ({"predictions": "made", "vae": assets.SMALL_VAE}, "--vae and --clip make videos"),
        ({"predictions": "none"}, "there is no folder none"),
        ({"checkpoint": assets.SMALL_VAE, "vae": assets.SMALL_VAE}, "not a UniAnimate model"),
        ({"lpips_weights": "none.pth"}, r"no LPIPS weights at none\.pth"),
        ({"lpips_weights": "none.pth", "size": "24x96"}, "24 x 96 are too small for LPIPS"),
        ({"fvd_weights": "none.pt"}, r"no FVD weights at none\.pt"),
        ({"fvd_weights": "none.pt", "frames": 9}, "--frames is 9: FVD needs 10 or more"),
        ({"size": "80000x80000"}, "GiB"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_before_any_work(tmp_path, data, run, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unianimate_core.evaluation.evaluate.read_clip", pytest.fail)
    with pytest.raises(InputError, match=message):
        run(data, **options)
    assert os.listdir(tmp_path) == ["data"]


def test_places_that_cannot_be_written_are_refused(tmp_path, data, run):
    with pytest.raises(InputError, match="there is no folder"):
        run(data, "none/out")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file: give a folder"):
        run(data, "file")
    (data / "a.mp4").touch()
    with pytest.raises(InputError, match="2 videos named a: leave one"):
        run(data)


def test_fvd_of_a_set_and_not_of_one_video(tmp_path, run):
    torch.jit.script(Features()).save(str(tmp_path / "i3d.pt"))
    data, made = tmp_path / "data", tmp_path / "made"
    data.mkdir()
    made.mkdir()
    for name, level in (("a", 40), ("b", 100)):
        frames = np.full((10, 16, 16, 3), level, np.uint8)
        write(data / f"{name}.mkv", frames, poses=False)
        write(made / f"{name}.mkv", frames + np.uint8(8), poses=False)
    found, said = run(data, predictions=made, fvd_weights=tmp_path / "i3d.pt")
    assert found["means"]["predictions"]["fvd"] == pytest.approx(3 * 8**2)
    assert found["means"]["still"]["fvd"] == pytest.approx(0, abs=1e-9)
    assert "FVD of 2 videos, no more than its 6 features" in said
    write(data / "b.mkv", frames[:9], poses=False)
    found, said = run(data, "one left", predictions=made, fvd_weights=tmp_path / "i3d.pt")
    assert "fvd" not in found["means"]["predictions"]
    assert "9 frames, 10 are needed" in found["skipped"]["b.mkv"]
    assert "FVD is left out: only one video" in said
    (data / "b.mkv").unlink()
    with pytest.raises(InputError, match=r"FVD compares sets of videos, .* has one"):
        run(data, "one", predictions=made, fvd_weights=tmp_path / "i3d.pt")


def test_parts_of_synthetic_people(tmp_path, run):
    """A blue arm, 20 pixels wide, on a grey wall; the prediction has it 5 pixels off."""
    data, made = tmp_path / "data", tmp_path / "made"
    made.mkdir()
    (data / "parts").mkdir(parents=True)
    labels = np.zeros((2, 48, 64), np.uint8)
    labels[:, 10:30, 20:40] = 1
    colours = np.array([(90, 90, 90), (30, 30, 200)], np.uint8)
    names = np.array(["background", "left_upper_arm"])
    np.savez_compressed(data / "parts" / "a.npz", labels=labels, names=names, background=colours[labels[0] * 0])
    write(data / "a.mkv", colours[labels], poses=False)
    write(made / "a.mkv", colours[np.roll(labels, 5, axis=2)], poses=False)
    found, _ = run(data, predictions=made)
    means = found["means"]
    assert means["predictions"]["limb_iou"] == means["predictions"]["person_iou"] == pytest.approx(15 / 25)
    assert means["truth"] == {"limb_iou": 1, "person_iou": 1, "identity": 0}
    assert means["still"]["limb_iou"] == 1
    assert means["colour"]["limb_iou"] == 0
    assert found["videos"][0]["parts_alike"] == [["left_upper_arm"]]
    assert "| Truth (ceiling of the part measures) | – | – | – | – | – | 1.000 | 1.000 | 0.00 |" in (
        tmp_path / "out" / "metrics.md"
    ).read_text(encoding="utf-8")
    np.savez_compressed(data / "parts" / "a.npz", labels=labels[:1], names=names, background=colours[labels[0]])
    with pytest.raises(InputError, match=r"a\.mkv has 2 frames, .*a\.npz has 1"):
        run(data, "other", predictions=made)
