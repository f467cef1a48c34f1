"""The command line: videos of the small model, and one clear line for whatever cannot be."""

import copy
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from synthetic import GOLDEN

from unianimate_core import animate_work, assets, cli, load_unet
from unianimate_core.video import read_video

EXAMPLES = GOLDEN.parent.parent / "samples"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dance():
    return json.loads((EXAMPLES / "dance.json").read_text())[:5]


@pytest.fixture
def folder(tmp_path, dance):
    (tmp_path / "motion.json").write_text(json.dumps(dance))
    Image.open(EXAMPLES / "person.jpg").resize((64, 96)).save(tmp_path / "person.png")
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `unianimate …` in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unianimate", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return run


def arguments(folder, **options):
    """Of `animate`, small unless told otherwise; None leaves an option out, True makes it a flag."""
    files = {"reference": folder / "person.png", "motion": folder / "motion.json", "output": folder / "out.mp4"}
    options = {**files, "size": "64x96", "frames": 2, "steps": 1, **options}
    given = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
    return ["animate", *(part for name, value in given for part in ((name,) if value is True else (name, value)))]


def refused(command, arguments, *parts):
    """The command ends with code 2 and one line of explanation which has all the parts in it."""
    code, out, err = command(*arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert "Traceback" not in err
    assert err.endswith(lines[0] + "\n")
    for part in parts:
        assert str(part) in lines[0], lines[0]
    return err


def without_prompt(path):
    weights = load_file(assets.SMALL_UNET)
    del weights["empty_prompt"]
    save_file(weights, path)
    return path


def test_a_video_of_the_small_model(folder, command):
    code, out, err = command(*arguments(folder))
    assert (code, out, "No --checkpoint given" in err) == (0, "", True)
    frames, fps = read_video(folder / "out.mp4")
    assert frames.shape == (2, 96, 64, 3)
    assert fps == 30
    first = (folder / "out.mp4").read_bytes()
    assert sorted(os.listdir(folder)) == ["motion.json", "out.mp4", "person.png"]

    refused(command, arguments(folder), "out.mp4 exists", "--overwrite")
    assert command(*arguments(folder, overwrite=True))[0] == 0
    assert (folder / "out.mp4").read_bytes() == first  # same seed
    assert command(*arguments(folder, overwrite=True, seed=1))[0] == 0
    assert (folder / "out.mp4").read_bytes() != first


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"frames": 0}, 5),
        ({"frames": 0, "start": 3}, 2),
        ({"frames": None}, 5),  # up to 16, of a motion of 5
        ({"frames": None, "start": 4}, 1),
        ({"frames": 1, "output": "out.gif", "fps": 25, "size": "72x40", "fit": "pad"}, 1),
    ],
)
def test_lengths_and_formats(folder, command, options, count, monkeypatch):
    monkeypatch.chdir(folder)
    code, _, err = command(*arguments(folder, **options))
    assert code == 0, err
    frames, fps = read_video(folder / options.get("output", "out.mp4"))
    assert frames.shape == (count, *((40, 72) if "size" in options else (96, 64)), 3)
    assert fps == options.get("fps", 30)


def test_up_to_16_frames_where_none_are_asked_for(folder, command, dance):
    (folder / "motion.json").write_text(json.dumps(dance * 4))
    assert command(*arguments(folder, frames=None, size="16x16"))[0] == 0
    assert len(read_video(folder / "out.mp4")[0]) == 16


BAD_OPTIONS = [
    ({"size": "0x96"}, "width is 0"),
    ({"size": "64x-96"}, "height is -96"),
    ({"size": "64x100"}, "height is 100", "96 or 104"),
    ({"size": "80000x80000"}, "GiB", "free", "2 frames of 80000 x 80000", "--size"),
    ({"size": "abc"}, "--size is 'abc'", "512x768"),
    ({"size": "64"}, "--size is '64'"),
    ({"frames": 6}, "frames is 6", "1 to 5"),
    ({"frames": -1}, "frames is -1", "1 to 5"),
    ({"start": 5}, "start is 5", "0 to 4"),
    ({"start": 5, "frames": None}, "start is 5", "0 to 4"),
    ({"canvas": "9"}, "--canvas is '9'"),
    ({"steps": 0}, "steps is 0"),
    ({"noise_prior": 2000}, "timestep is 2000"),
    ({"guidance": "nan"}, "guidance is nan"),
    ({"guidance": -2}, "guidance is -2"),
    ({"seed": -1}, "seed is -1"),
    ({"fps": 0}, "0.0 frames per second"),
    ({"fps": "nan"}, "nan frames per second"),
    ({"person": 5}, "person"),
    ({"person": -1}, "person"),
    ({"device": "tpu9"}, "--device tpu9", "cpu"),
    ({"device": "meta"}, "--device meta"),
    ({"vae": assets.SMALL_VAE}, "--checkpoint and --vae belong together"),
    ({"checkpoint": assets.SMALL_UNET}, "--checkpoint and --vae belong together"),
    ({"checkpoint": assets.SMALL_VAE, "vae": assets.SMALL_VAE}, "not a UniAnimate model", "TAESD"),
    ({"checkpoint": assets.SMALL_UNET, "vae": assets.SMALL_UNET}, "not an autoencoder"),
    ({"checkpoint": "missing.pth", "vae": assets.SMALL_VAE}, "no checkpoint file at missing.pth"),
    ({"reference": "missing.png"}, "no picture at missing.png"),
    ({"reference": "motion.json"}, "motion.json", "not a picture"),
    ({"motion": "missing.json"}, "missing.json"),
    ({"motion": "person.png"}, "person.png", "not text"),
    ({"reference_pose": "missing.json"}, "missing.json"),
    ({"output": "out.avi"}, "out.avi", ".mp4"),
    ({"output": "out"}, "must end in one of .mp4"),
    ({"output": "none/out.mp4"}, "no folder none"),
]


@pytest.mark.parametrize("case", BAD_OPTIONS, ids=[str(options) for options, *_ in BAD_OPTIONS])
def test_what_cannot_be_is_refused_before_any_work(folder, command, case, monkeypatch):
    options, *parts = case
    monkeypatch.chdir(folder)
    monkeypatch.setattr(animate_work, "progress_bars", pytest.fail)  # made when the sampling begins
    before = sorted(os.listdir(folder))
    refused(command, arguments(folder, **options), *parts)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_what_permissions_forbid(folder, command):
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    (folder / "secret.json").touch(0)
    user = os.geteuid()
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)  # root writes everywhere
    try:
        refused(command, arguments(folder), "cannot write", "out.mp4", "ermission")
        refused(command, ["convert", assets.SMALL_UNET, folder / "a.safetensors"], "cannot write", "a.safetensors")
        refused(command, arguments(folder, motion=folder / "secret.json"), "secret.json", "ermission")
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_checkpoint_that_needs_clip_is_told_before_it_is_loaded(folder, command, monkeypatch):
    monkeypatch.setattr("unianimate_core.unet.load_unet", pytest.fail)
    path = without_prompt(folder / "bare.safetensors")
    refused(command, arguments(folder, checkpoint=path, vae=assets.SMALL_VAE), path, "--clip")


def test_any_picture_will_do(folder, command):
    colours = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    person = Image.fromarray(colours)
    grey = person.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side: to be shown turned by 90 degrees clockwise
    pictures = {
        "rgb.png": (person, {}),
        "turned.png": (person.rotate(90, expand=True), {"exif": exif}),
        "alpha.png": (Image.merge("RGBA", (*person.split(), grey)), {}),
        "grey.png": (grey, {}),
        "grey16.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), {}),
        "dot.png": (person.resize((1, 1)), {}),
    }
    videos = {}
    for name, (image, options) in pictures.items():
        image.save(folder / name, **options)
        code, _, err = command(*arguments(folder, reference=folder / name, frames=1, output=folder / f"{name}.mp4"))
        assert code == 0, err
        videos[name] = (folder / f"{name}.mp4").read_bytes()
    assert videos["turned.png"] == videos["alpha.png"] == videos["rgb.png"]
    assert videos["grey16.png"] == videos["grey.png"] != videos["rgb.png"]


def test_motions_with_gaps_and_other_canvases(folder, command, dance):
    gaps = copy.deepcopy(dance)
    for frame in gaps[1:3]:
        frame["people"] = []
    (folder / "motion.json").write_text(json.dumps(gaps))
    code, _, err = command(*arguments(folder, frames=4))
    assert code == 0, err
    assert "2 of 4 frames of the motion show no person" in err
    refused(command, arguments(folder, start=1, overwrite=True), "nobody in its frames 1 to 2")

    for frame in gaps:
        frame["canvas_width"], frame["canvas_height"] = 1920, 1080
    (folder / "motion.json").write_text(json.dumps(gaps))
    for fit in ("crop", "pad", "stretch"):
        assert command(*arguments(folder, fit=fit, output=folder / f"{fit}.mp4"))[0] == 0
    assert len({(folder / f"{fit}.mp4").read_bytes() for fit in ("crop", "pad", "stretch")}) == 3

    for frame in gaps:
        frame["people"] = []
    (folder / "motion.json").write_text(json.dumps(gaps))
    refused(command, arguments(folder, overwrite=True), "motion.json", "no person")


@pytest.mark.parametrize(
    ("interruption", "code"),
    [
        (KeyboardInterrupt(), 130),
        (MemoryError("3 GiB"), 2),
        (torch.cuda.OutOfMemoryError("tried to allocate 3 GiB"), 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), 2),
    ],
)
def test_an_end_in_the_middle_leaves_nothing(folder, command, monkeypatch, interruption, code):
    from unianimate_core.autoencoder import Autoencoder

    whole = Autoencoder.decode_groups

    def broken(self, latents):
        yield next(whole(self, latents))
        raise interruption

    monkeypatch.setattr(Autoencoder, "decode_groups", broken)
    before = sorted(os.listdir(folder))
    given, _, err = command(*arguments(folder))
    assert given == code
    assert ("error: out of memory" in err) == (code == 2)
    assert "Traceback" not in err
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(("name", "advice"), [("train", "gradient_checkpointing"), ("train-autoencoder", "--batch")])
def test_out_of_memory_in_training_names_options_that_it_has(command, monkeypatch, name, advice):
    def broken():
        raise torch.cuda.OutOfMemoryError("tried to allocate 3 GiB")

    monkeypatch.setattr(cli, "app", broken)
    code, _, err = command(name)
    assert code == 2
    assert advice in err
    assert "--size" not in err


def test_other_errors_keep_their_traceback(folder, monkeypatch):
    monkeypatch.setattr("unianimate_core.pose.read_motion", lambda *_: [][0])
    monkeypatch.setattr(sys, "argv", ["unianimate", *map(str, arguments(folder))])
    with pytest.raises(IndexError):
        cli.main()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_convert(tmp_path, command, form, dtype):
    weights = load_file(assets.SMALL_UNET)
    source, target = tmp_path / "model.pth", tmp_path / "small.safetensors"
    if form == "safetensors":
        save_file(weights, source)
    else:
        torch.save({"state_dict": weights, "step": 7}, source, _use_new_zipfile_serialization=form == "zip")
    code, _, err = command("convert", source, target, "--dtype", dtype)
    assert code == 0, err
    assert "UniAnimate" in err
    wanted = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    loaded = load_unet(target, dtype=None).state_dict()
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(loaded[name], tensor.to(wanted)), name


def test_convert_refuses(tmp_path, command, monkeypatch):
    source, target = tmp_path / "source.safetensors", tmp_path / "a.safetensors"
    weights = load_file(assets.SMALL_UNET)
    large = {name: tensor.float() for name, tensor in weights.items()}
    large["out.0.bias"][3] = 70000
    save_file(large, source)
    refused(command, ["convert", source, target], "1 of 64 values of out.0.bias", "fp16", "bf16")
    assert command("convert", source, target, "--dtype", "bf16")[0] == 0
    refused(command, ["convert", source, target], "a.safetensors exists", "--overwrite")
    refused(command, ["convert", target, target, "--overwrite"], "source itself")
    monkeypatch.chdir(tmp_path)
    refused(command, ["convert", target, "../" + tmp_path.name + "/a.safetensors", "--overwrite"], "source itself")
    before = target.read_bytes()
    refused(command, ["convert", assets.SMALL_VAE, target, "--overwrite"], "not a UniAnimate model", "TAESD")
    assert target.read_bytes() == before
    refused(command, ["convert", source, tmp_path / "a.pth"], "must end in one of .safetensors")
    refused(command, ["convert", source, tmp_path / "none" / "a.safetensors"], "no folder")
    (tmp_path / "b.safetensors").mkdir()
    refused(command, ["convert", source, tmp_path / "b.safetensors", "--overwrite"], "is a folder")
    refused(command, ["convert", tmp_path / "missing.pth", tmp_path / "c.safetensors"], "missing.pth")
    del large["out.0.bias"]
    save_file(large, source)
    refused(command, ["convert", source, tmp_path / "c.safetensors"], "out.0.bias", "missing")
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors", "source.safetensors"]


def test_convert_stores_the_empty_prompt_which_then_serves(folder, command, monkeypatch):
    asked = []
    clip = SimpleNamespace(encode_image=lambda pixels: pixels.new_zeros(1, 1024))
    clip.tokens = torch.linspace(-1, 1, 77 * 64).reshape(77, 64)
    clip.empty_prompt = lambda: clip.tokens
    monkeypatch.setattr("unianimate_core.clip.load_clip", lambda path, **options: asked.append(options) or clip)
    source, target = without_prompt(folder / "bare.safetensors"), folder / "own.safetensors"
    models = {"checkpoint": target, "vae": assets.SMALL_VAE, "frames": 1}
    assert command("convert", source, target, "--clip", "clip.bin", "--dtype", "fp32")[0] == 0
    assert torch.equal(load_unet(target).empty_prompt, clip.tokens)
    code, _, err = command(*arguments(folder, **models))
    assert code == 0, err
    assert "No --clip given" in err
    for name, path in (("text.mp4", source), ("own.mp4", target)):
        options = {**models, "checkpoint": path, "clip": "clip.bin", "output": folder / name}
        assert command(*arguments(folder, **options))[0] == 0
    assert (folder / "text.mp4").read_bytes() == (folder / "own.mp4").read_bytes()
    assert [options["text"] for options in asked[1:]] == [True, False]
    clip.tokens = clip.tokens[:, :48]
    refused(command, ["convert", source, folder / "b.safetensors", "--clip", "clip.bin"], "width 48", "takes 64")


def test_inspect(tmp_path, command):
    _, out, _ = command("inspect", assets.SMALL_UNET)
    for part in (
        "temporal transformers",
        "9.5 M parameters",
        "float16",
        "widths 64, 96, 128",
        "context 64",
        "in the file",
    ):
        assert part in out
    torch.save({"input_blocks.0.0.weight": torch.zeros(2)}, tmp_path / "vgen")
    kinds = {"TAESD": assets.SMALL_VAE, "without UniAnimate's": tmp_path / "vgen"}
    for kind, path in kinds.items():
        code, out, _ = command("inspect", path)
        assert code == 0
        assert kind in out


def test_inspect_damaged_files(tmp_path, command):
    whole = assets.SMALL_UNET.read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    refused(command, ["inspect", tmp_path / "cut"], "truncated")
    (tmp_path / "page").write_text("<html>Sign in</html>")
    refused(command, ["inspect", tmp_path / "page"], "web page")
    weights = load_file(assets.SMALL_UNET)
    weights["out.0.bias"][0] = float("nan")
    save_file(weights, tmp_path / "nan")
    refused(command, ["inspect", tmp_path / "nan"], "1 of 64 values of out.0.bias")
    del weights["out.0.bias"]
    save_file(weights, tmp_path / "part")
    refused(command, ["inspect", tmp_path / "part"], "missing", "out.0.bias")


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_as_a_program(folder):
    made = start("-m", "unianimate_core.cli", *arguments(folder))
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    assert len(read_video(folder / "out.mp4")[0]) == 2
    failed = start("-m", "unianimate_core.cli", "inspect", folder / "missing")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == f"error: no checkpoint file at {folder / 'missing'}: check the path\n"


def test_the_help_loads_nothing_heavier_than_torch_and_shows_every_default():
    code = "import sys; from unianimate_core import cli; sys.argv = ['unianimate', 'animate', '--help']\n"
    code += "try:\n    cli.main()\nfinally:\n    print(sorted(sys.modules), file=sys.stderr)"
    shown = start("-c", code)
    assert shown.returncode == 0
    loaded = set(shown.stderr.replace("'", "").strip("[]\n").split(", "))
    assert {"torch", "typer"} <= loaded
    assert not {"diffusers", "av", "cv2", "PIL", "open_clip", "psutil", "transformers"} & loaded
    for default in ("512x768", "up to 16", "fp16 on a GPU", "cuda if there is one", "949", "as in the motion"):
        assert default in shown.stdout
