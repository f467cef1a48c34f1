import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unianimate_core.errors import InputError
from unianimate_core.video import fit_picture, read_picture


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)


def save(image, path, **options):
    image.save(path, **options)
    return path


def levels(picture):
    """Back to 0–255, where the values must be whole."""
    assert picture.dtype == torch.float32
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    rounded = (picture * 255).round()
    torch.testing.assert_close(rounded, picture * 255, rtol=0, atol=1e-4)
    return rounded.numpy().astype(np.uint8)


def test_rgb_is_exact(tmp_path, noise):
    assert np.array_equal(levels(read_picture(save(Image.fromarray(noise), tmp_path / "a.png"))), noise)


def test_alpha_is_dropped_and_the_colour_under_it_kept(tmp_path, noise):
    alpha = np.zeros((13, 17, 1), np.uint8)
    alpha[:, :8] = 128
    path = save(Image.fromarray(np.concatenate([noise, alpha], 2)), tmp_path / "a.png")
    assert np.array_equal(levels(read_picture(path)), noise)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_goes_to_three_equal_channels(tmp_path, mode):
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert(mode)
    picture = levels(read_picture(save(grey, tmp_path / "a.png")))
    expected = np.asarray(grey.getchannel(0)).astype(int) * (255 if mode == "1" else 1)
    assert np.array_equal(picture, np.repeat(expected[..., None], 3, 2))


def test_palette_with_a_transparent_entry_keeps_all_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = save(image, tmp_path / "a.png", transparency=1)
    assert levels(read_picture(path)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_sixteen_bit_grey_is_not_clipped(tmp_path):
    values = np.array([[0, 1, 255, 256], [1000, 40000, 65534, 65535]], np.uint16)
    for name in ("a.png", "a.tiff"):
        assert cv2.imwrite(str(tmp_path / name), values)
        picture = read_picture(tmp_path / name)
        np.testing.assert_allclose(picture.numpy(), np.repeat(values[..., None], 3, 2) / 65535, atol=1e-7)


def test_cmyk(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tiff"):
        picture = read_picture(save(red, tmp_path / name))
        np.testing.assert_allclose(picture.numpy(), np.broadcast_to([1, 0, 0], (8, 8, 3)), atol=3 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_as_opencv_applies_it(tmp_path, orientation):
    blocks = np.random.default_rng(1).integers(0, 256, (3, 2, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.fromarray(blocks), tmp_path / "a.jpg", quality=100, subsampling=0, exif=exif)
    expected = cv2.imread(str(path))[..., ::-1]
    picture = levels(read_picture(path))
    assert picture.shape == ((48, 32, 3) if orientation < 5 else (32, 48, 3))
    assert np.abs(picture.astype(int) - expected).max() <= 3


def test_an_animated_file_gives_its_first_frame(tmp_path):
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    for name in ("a.gif", "a.webp"):
        path = save(first, tmp_path / name, save_all=True, append_images=[second], lossless=True)
        picture = read_picture(path)
        np.testing.assert_allclose(picture.numpy(), np.broadcast_to([1, 0, 0], (4, 4, 3)), atol=2 / 255)


def png_of_size(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no picture at"),
        (b"", "empty"),
        (b"<!doctype html><p>404", "not a picture"),
        (png_of_size(100_000, 100_000), "too many pixels"),
        (png_of_size(12_000, 12_000), "scale it down"),
        (png_of_size(64, 64), "truncated"),
    ],
)
def test_a_bad_file_is_an_input_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_picture(path)
    assert str(path) in str(error.value)


def test_a_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        read_picture(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif"])
def test_every_truncation_is_an_input_error(tmp_path, noise, name):
    content = save(Image.fromarray(np.tile(noise, (4, 4, 1))), tmp_path / name).read_bytes()
    for share in (0.05, 0.3, 0.6, 0.9):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=name):
            read_picture(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["a.png", "a.jpg", "a.gif", "a.tiff", "a.webp"]))
def test_damaged_bytes_give_a_picture_or_an_input_error(tmp_path_factory, seed, name):
    rng = np.random.default_rng(seed)
    path = save(Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)), tmp_path_factory.mktemp("f") / name)
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, len(content), 6):
        content[place] = rng.integers(0, 256)
    path.write_bytes(content)
    try:
        picture = read_picture(path)
    except InputError:
        return
    assert picture.shape[2] == 3
    assert 0 <= picture.min() <= picture.max() <= 1


def test_missing_pillow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png_of_size(1, 1))
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(InputError, match="install the extra `standalone`"):
        read_picture(tmp_path / "a.png")


def test_fitting_to_the_same_size_changes_nothing():
    picture = torch.rand(12, 16, 3)
    fitted, box = fit_picture(picture, 16, 12)
    torch.testing.assert_close(fitted, picture, rtol=0, atol=1e-6)
    assert box == (0, 0, 1, 1)


def test_shrinking_equals_pillows_bilinear():
    levels = np.random.default_rng(2).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    fitted, box = fit_picture(torch.from_numpy(levels) / 255, 40, 40)
    assert box == (0, 15 / 120, 1, 105 / 120)
    expected = np.asarray(Image.fromarray(levels).crop((0, 15, 90, 105)).resize((40, 40), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(fitted.numpy() * 255, expected, atol=1.01)


def test_enlarging_equals_opencvs_bilinear():
    picture = np.random.default_rng(3).random((10, 20, 3), dtype=np.float32)
    fitted, box = fit_picture(torch.from_numpy(picture), 37, 41)
    left = round(box[0] * 20)
    right = round(box[2] * 20)
    expected = cv2.resize(picture[:, left:right], (37, 41), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(fitted.numpy(), expected, atol=1e-5)


def test_the_box_tells_where_a_keypoint_goes():
    height, width = 60, 200
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height) + 0.5) / height
    picture = torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.zeros(height, width)], -1)
    fitted, (left, top, right, bottom) = fit_picture(picture, 160, 96)  # every pixel holds its own source position
    expected_x = left + (torch.arange(160) + 0.5) / 160 * (right - left)
    expected_y = top + (torch.arange(96) + 0.5) / 96 * (bottom - top)
    torch.testing.assert_close(fitted[5, 2:-2, 0], expected_x[2:-2], rtol=0, atol=1e-5)
    torch.testing.assert_close(fitted[2:-2, 5, 1], expected_y[2:-2], rtol=0, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_the_crop_is_centred_of_the_right_aspect_and_as_large_as_possible(source_width, source_height, width, height):
    fitted, (left, top, right, bottom) = fit_picture(torch.rand(source_height, source_width, 3), width, height)
    assert fitted.shape == (height, width, 3)
    assert fitted.isfinite().all()
    crop_width, crop_height = (right - left) * source_width, (bottom - top) * source_height
    assert crop_width > 0.99
    assert crop_height > 0.99
    assert right - left > 0.999 or bottom - top > 0.999
    wanted_width, wanted_height = crop_height * width / height, crop_width * height / width
    assert (
        abs(crop_width - wanted_width) <= 0.501
        or abs(crop_height - wanted_height) <= 0.501
        or (1 in (round(crop_width), round(crop_height)))
    )
    assert abs(left - (1 - right)) * source_width <= 1.001
    assert abs(top - (1 - bottom)) * source_height <= 1.001


def test_a_single_pixel_fills_any_size():
    fitted, box = fit_picture(torch.tensor([[[0.2, 0.4, 0.6]]]), 24, 8)
    torch.testing.assert_close(fitted, torch.tensor([0.2, 0.4, 0.6]).expand(8, 24, 3))
    assert box == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("picture", "width", "height"),
    [
        (torch.rand(3, 8, 8), 8, 8),
        (torch.rand(1, 8, 8, 3), 8, 8),
        (torch.rand(0, 8, 3), 8, 8),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), 8, 8),
        (torch.rand(8, 8, 3), 0, 8),
        (torch.rand(8, 8, 3), 8, -1),
    ],
)
def test_what_cannot_be_fitted_is_an_input_error(picture, width, height):
    with pytest.raises(InputError):
        fit_picture(picture, width, height)
