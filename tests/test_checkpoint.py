"""Checkpoint files: whole ones in every format, damaged ones, strange ones, and what the others are called."""

import os
import random
import stat
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unianimate_core import InputError, load_unet
from unianimate_core.assets import SMALL_UNET
from unianimate_core.checkpoint import check_finite, read_tensors, save_tensors, unet_tensors

FORMATS = ("safetensors", "zip", "legacy")
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions and limits")


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(40, 50, generator=generator) * 100,
        "b": torch.randn(7, generator=generator).half(),
        "c": torch.randn(3, 1, generator=generator).bfloat16(),
        "scalar": torch.tensor(0.5),
        "ids": torch.arange(5),
    }


def write(content, path, form):
    if form == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


def refused(path, match, function=read_tensors):
    with pytest.raises(InputError, match=match) as caught:
        function(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def assert_same(given, expected):
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        assert given[name].dtype == tensor.dtype, name
        assert torch.equal(given[name], tensor), name


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ""])
def test_every_format_is_read_whatever_the_suffix(tmp_path, form, suffix):
    read, metadata = read_tensors(write(tensors(), tmp_path / f"model{suffix}", form))
    assert_same(read, tensors())
    assert metadata == {}


@pytest.mark.parametrize("form", FORMATS[1:])
def test_levels_and_other_entries_of_pickles(tmp_path, form):
    content = {"state_dict": {"state_dict": tensors()}, "step": 223000, "epoch": 1.5, "note": "text", "list": [1, None]}
    assert_same(read_tensors(write(content, tmp_path / "a.pth", form))[0], tensors())
    assert_same(read_tensors(write(tensors() | {"step": 3}, tmp_path / "b.pth", form))[0], tensors())
    parameters = {name: torch.nn.Parameter(tensor, tensor.is_floating_point()) for name, tensor in tensors().items()}
    read, _ = read_tensors(write(parameters, tmp_path / "c.pth", form))
    assert_same(read, tensors())
    assert not any(tensor.requires_grad for tensor in read.values())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("group", [1, 64 << 20])
def test_conversion_equals_torchs_and_leaves_integers(tmp_path, form, dtype, group, monkeypatch):
    monkeypatch.setattr("unianimate_core.checkpoint.GROUP_BYTES", group)
    read, _ = read_tensors(write(tensors(), tmp_path / "a", form), dtype)
    assert_same(read, {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors().items()})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
@pytest.mark.parametrize("form", FORMATS)
def test_a_conversion_keeps_no_mapping_and_reading_holds_nothing_twice(tmp_path, form):
    path = write(tensors(), tmp_path / "a", form)
    read, _ = read_tensors(path, torch.float16)  # b and ids stay as they are: they must not hold the file
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert len(read) == len(tensors())
    read, _ = read_tensors(path)
    assert (str(path) in Path("/proc/self/maps").read_text()) == (form != "legacy")


@pytest.mark.parametrize("form", FORMATS)
def test_writing_to_loaded_tensors_does_not_alter_the_file(tmp_path, form):
    path = write(tensors(), tmp_path / "a", form)
    before = path.read_bytes()
    for tensor in read_tensors(path)[0].values():
        tensor.add_(1)
    assert path.read_bytes() == before
    assert_same(read_tensors(path)[0], tensors())


@pytest.mark.parametrize("first", [0x50, 0x80])
def test_a_safetensors_file_may_begin_as_a_pickle_or_a_zip_does(tmp_path, first):
    """Its first byte is that of the header's length."""
    path = tmp_path / "a.safetensors"
    for padding in range(256):
        save_file({"a": torch.arange(3.0)}, path, metadata={"": "x" * 8 * padding})
        if path.read_bytes()[0] == first:
            break
    assert path.read_bytes()[0] == first
    assert torch.equal(read_tensors(path)[0]["a"], torch.arange(3.0))


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_files(tmp_path, form):
    data = write({"state_dict": tensors()} if form != "safetensors" else tensors(), tmp_path / "a", form).read_bytes()
    header = 8 + int.from_bytes(data[:8], "little") if form == "safetensors" else 30
    for cut in (1, 4, 7, 8, 9, 20, header - 1, header, header + 1, len(data) // 2, len(data) - 100, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:cut])
        message = refused(tmp_path / "cut", "truncated" if cut > 8 else "truncated|the download is complete")
        assert len(message.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_bytes_never_end_in_another_error(tmp_path, form):
    data = write(tensors(), tmp_path / "a", form).read_bytes()
    dice = random.Random(0)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.choice((1, 3, 20))):
            damaged[dice.randrange(min(len(data), 2500))] = dice.randrange(256)
        (tmp_path / "b").write_bytes(damaged)
        try:
            read_tensors(tmp_path / "b")
            outcomes.add("read")
        except InputError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}  # else the damage was too mild, or too coarse, to test anything


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><title>404</title>", "web page"),
        (b"\n\n <html><body>Sign in</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 2833\n", "Git LFS pointer"),
        (b"GGUF\x03\x00\x00\x00" + bytes(100), "GGUF"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\xf0", "ONNX"),
        (b'{"error": "not found"}', "not a checkpoint"),
        (b"PK\x03\x04" + bytes(200), "no PyTorch checkpoint"),
        (random.Random(1).randbytes(4000), "not a checkpoint"),
        (bytes(4000), "not a checkpoint"),
        (b"cposix\nsystem\n(S'true'\ntR.", "not a checkpoint"),
        ((2).to_bytes(8, "little") + b"{}", "no tensors"),
        ((1 << 63).to_bytes(8, "little") + b"{}", "neither safetensors nor"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, match):
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path / "model.safetensors", match)


@pytest.mark.parametrize("form", FORMATS[1:])
def test_pickles_without_tensors(tmp_path, form):
    for content in ([1, 2], {"step": 3}, {"state_dict": {}}, torch.zeros(3), "text"):
        refused(write(content, tmp_path / "a.pth", form), "no tensors")


def test_paths_that_are_no_files(tmp_path):
    refused(tmp_path / "missing.pth", "no checkpoint file")
    refused(tmp_path / "a" / "missing.pth", "no checkpoint file")
    refused(tmp_path, "is a folder")


@posix
def test_an_unreadable_file(tmp_path):
    path = write(tensors(), tmp_path / "a", "safetensors")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root reads everything
    try:
        refused(path, "[Pp]ermission")
    finally:
        os.seteuid(user)


class Code:
    """Unpickling it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", FORMATS[1:])
@pytest.mark.parametrize("insist", ["0", "1"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, form, insist, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", insist)
    harmful = Code(tmp_path / "harm")
    for content in ({"state_dict": tensors(), "args": harmful}, tensors() | {"x": harmful}, harmful):
        path = write(content, tmp_path / "a.pth", form)
        message = refused(path, "refused.*code")
        assert "mkdir" in message
        assert not harmful.path.exists()
    torch.load(path, weights_only=False)
    assert harmful.path.exists()  # the pickle was a live one


def test_a_wrappers_prefix_is_taken_off(tmp_path):
    weights = load_file(SMALL_UNET)
    for prefix in ("", "module.", "model.diffusion_model.", "diffusion_model."):
        others = {"first_stage_model.decoder.conv_in.weight": torch.zeros(1)} if prefix else {}
        wrapped = {prefix + name: tensor for name, tensor in weights.items()} | others
        assert_same(unet_tensors(wrapped), weights)
    unet = load_unet(write({"state_dict": wrapped, "step": 1}, tmp_path / "a.pth", "zip"), dtype=None)
    assert_same(unet.state_dict(), weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_nan_and_infinity_are_named_and_counted(dtype):
    good = {"ids": torch.arange(3), "fine": torch.ones(9).to(dtype), "empty": torch.ones(0).to(dtype)}
    check_finite(good, "x.pth")
    bad = torch.ones(5, 8)
    bad[1, 2] = bad[4, 7] = float("nan")
    if dtype != torch.float8_e4m3fn:  # which has no infinity
        bad[0, 0], bad[0, 1] = float("inf"), -float("inf")
    count = int((~torch.isfinite(bad)).sum())
    with pytest.raises(InputError, match=rf"x\.pth: {count} of 40 values of second are NaN or infinite"):
        check_finite(good | {"second": bad.to(dtype)}, "x.pth")


def test_large_but_finite_weights_pass():
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        check_finite({"a": torch.full((5000,), torch.finfo(dtype).max, dtype=dtype)})
        check_finite({"a": torch.tensor([1.0, -1.0], dtype=dtype) * torch.finfo(dtype).max})
    check_finite({"a": torch.full((5000,), 448.0).to(torch.float8_e4m3fn)})
    check_finite({"a": torch.ones(3, device="meta")})


def test_what_float16_cannot_hold_is_told_from_damage():
    with pytest.raises(InputError, match=r"1 of 2 values of a are infinite; float16 ends at 65504.*bf16"):
        check_finite({"a": torch.tensor([1.0, 65600.0]).half()})
    with pytest.raises(InputError, match="damaged"):
        check_finite({"a": torch.tensor([float("inf"), float("nan")]).half()})


def test_saving_round_trips_also_where_memory_is_shared(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    content = {
        "base": base,
        "same": base,
        "part": base[1:],
        "transposed": base.T,
        "strided": base[:, ::2],
        "expanded": torch.ones(1).expand(6),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
    }
    expected = {name: tensor.detach().clone() for name, tensor in content.items()}
    save_tensors(content, tmp_path / "a.safetensors", {"key": "value"})
    assert_same(load_file(tmp_path / "a.safetensors"), expected)
    assert read_tensors(tmp_path / "a.safetensors")[1] == {"key": "value"}
    content["base"][:] = 0
    assert_same(load_file(tmp_path / "a.safetensors"), expected)


@posix
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    import resource

    path = tmp_path / "a.safetensors"
    save_tensors({"old": torch.ones(3)}, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond: writing fails half way
    try:
        refused(path, "cannot write.*space", lambda path: save_tensors({"new": torch.ones(1_000_000)}, path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_tensors({"old": torch.ones(3)}, path)
    before = path.read_bytes()

    def interrupted(tensors, partial, metadata):
        Path(partial).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("unianimate_core.checkpoint.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_tensors({"new": torch.ones(3)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@posix
def test_a_saved_file_has_the_permissions_that_any_new_file_has(tmp_path):
    before = os.umask(0o027)
    try:
        save_tensors({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640


def test_a_place_that_cannot_be_written(tmp_path):
    refused(tmp_path / "none" / "a.safetensors", "cannot write", lambda path: save_tensors({"a": torch.ones(1)}, path))
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "cannot write", lambda path: save_tensors({"a": torch.ones(1)}, path))
    assert os.listdir(tmp_path) == ["folder"]
