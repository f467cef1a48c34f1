"""Metrics against formulas written out anew, other libraries, and closed forms."""

import logging
import math
import sys
from types import SimpleNamespace
from typing import List  # noqa: UP035

import numpy as np
import pytest
import torch

from unianimate_core.errors import InputError
from unianimate_core.evaluation import Lpips, VideoFeatures, frechet_distance, pixel_metrics
from unianimate_core.evaluation.metrics import BEST_PSNR, as_uint8

random = np.random.default_rng(0)
TRUTH = random.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
NEAR = (TRUTH.astype(int) + random.integers(-30, 31, TRUTH.shape)).clip(0, 255).astype(np.uint8)
FAR = random.integers(0, 256, TRUTH.shape, dtype=np.uint8)


def similarity(a: np.ndarray, b: np.ndarray, window: int = 7) -> float:
    """SSIM as Wang et al. (2004) have it, with means over a uniform window and unbiased variances."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    views = [
        np.lib.stride_tricks.sliding_window_view(picture.astype(float), (window, window), (0, 1)) for picture in (a, b)
    ]
    x, y = (view.reshape(*view.shape[:3], -1) for view in views)  # h w c window²
    mx, my = x.mean(-1), y.mean(-1)
    vx, vy = x.var(-1, ddof=1), y.var(-1, ddof=1)
    cov = ((x - mx[..., None]) * (y - my[..., None])).sum(-1) / (window**2 - 1)
    return (((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


@pytest.mark.parametrize("made", [NEAR, FAR], ids=["near", "far"])
def test_pixel_metrics_equal_their_formulas(made):
    from skimage.metrics import peak_signal_noise_ratio

    found = pixel_metrics(made, TRUTH)
    for index, (a, b) in enumerate(zip(made, TRUTH, strict=True)):
        numbers = [(int(x), int(y)) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
        difference = sum(abs(x - y) for x, y in numbers) / len(numbers)
        wrapped = sum((x - y) ** 2 % 256 for x, y in numbers) / len(numbers)
        assert found["l1"][index] == pytest.approx(difference)
        assert found["l1_published"][index] == pytest.approx(difference / (24 * 32))
        assert found["psnr_star"][index] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255))
        assert found["psnr"][index] == pytest.approx(20 * math.log10(255 / math.sqrt(wrapped)))
        assert found["ssim"][index] == pytest.approx(similarity(a, b), abs=1e-9)
    assert all(len(values) == 3 for values in found.values())


def test_the_published_l1_of_a_known_size():
    dark = np.full((1, 256, 256, 3), 100, np.uint8)
    found = pixel_metrics(dark + np.uint8(17), dark)
    assert found["l1"][0] == 17
    assert found["l1_published"][0] == pytest.approx(2.594e-4, rel=1e-3)


@pytest.mark.parametrize("step", [3, 15, 16, 17, 200])
def test_the_old_psnr_overflows_and_the_new_one_does_not(step):
    dark = np.full((1, 8, 8, 3), 20, np.uint8)
    found = pixel_metrics(dark + np.uint8(step), dark)
    assert found["psnr_star"][0] == pytest.approx(20 * math.log10(255 / step))
    overflown = {3: 9, 15: 225, 16: 0, 17: 33, 200: 64}[step]
    right = BEST_PSNR if overflown == 0 else 10 * math.log10(255**2 / overflown)
    assert found["psnr"][0] == pytest.approx(right)


def test_identical_videos_are_perfect_and_finite():
    found = pixel_metrics(TRUTH, TRUTH)
    assert not found["l1"].any()
    assert found["ssim"] == pytest.approx([1, 1, 1])
    for name in ("psnr", "psnr_star"):
        assert found[name] == pytest.approx([10 * math.log10(255**2 * 12)] * 3)


@pytest.mark.parametrize(
    "convert",
    [
        lambda video: video.astype(np.float32) / 255,
        lambda video: torch.from_numpy(video),
        lambda video: torch.from_numpy(video).double() / 255,
        lambda video: torch.from_numpy(video).to(torch.float32) / 255,
    ],
)
def test_every_kind_of_video_is_measured_alike(convert):
    assert np.array_equal(as_uint8(convert(TRUTH)), TRUTH)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (TRUTH / 127.5 - 1, "values from -1 to 1: bring floats to 0 to 1"),
        (TRUTH.astype(np.float32), "values from 0 to 255"),
        (np.full((1, 8, 8, 3), np.nan), "nan"),
        (TRUTH.astype(np.int64), "int64"),
        (TRUTH[0], r"f h w 3 .* not \(24, 32, 3\)"),
        (TRUTH[:0], "at least one frame"),
        (TRUTH[..., :1], "f h w 3"),
    ],
)
def test_other_ranges_and_shapes_are_refused(video, message):
    with pytest.raises(InputError, match=message):
        as_uint8(video)


def test_videos_that_do_not_fit_together_are_refused_with_both_numbers():
    with pytest.raises(InputError, match="made has 2 frames, truth has 3"):
        pixel_metrics(TRUTH[:2], TRUTH)
    with pytest.raises(InputError, match="made has frames of 32 x 20, truth of 32 x 24"):
        pixel_metrics(TRUTH[:, :20], TRUTH)
    with pytest.raises(InputError, match="6 x 24 are too small for SSIM"):
        pixel_metrics(TRUTH[:, :, :6], TRUTH[:, :, :6])


def test_the_frechet_distance_of_diagonal_gaussians():
    """Axis-aligned points have a diagonal covariance, for which the distance is |m - n|² + Σ (σ - τ)²."""
    sides = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    middles = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    a, b = (
        [middle + sign * side * axis for axis in np.eye(3) for sign in (-1, 1)]
        for side, middle in zip(sides, middles, strict=True)
    )
    deviations = [side * math.sqrt(2 / 5) for side in sides]  # of 6 points, divided by 5
    expected = ((middles[0] - middles[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_the_frechet_distance_of_any_gaussians_is_scipys():
    from scipy.linalg import sqrtm

    a, b = random.standard_normal((40, 6)), random.standard_normal((30, 6)) @ random.standard_normal((6, 6)) + 1
    c, d = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_the_frechet_distance_of_few_videos_says_so(caplog):
    with pytest.raises(InputError, match="1 made and 3 true are too few"):
        frechet_distance([np.zeros(4)], [np.zeros(4)] * 3)
    with caplog.at_level(logging.WARNING):
        assert frechet_distance([np.zeros(4), np.ones(4)], [np.zeros(4), np.ones(4)]) == pytest.approx(0, abs=1e-12)
    assert "2 videos" in caplog.text
    assert "features (4)" in caplog.text


class Features(torch.nn.Module):
    """Called as I3D's TorchScript is; the features are the means of red, green, blue and the options."""

    def forward(
        self, video: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        options: List[float] = [float(rescale), float(resize), float(return_features)]  # noqa: UP006
        given = torch.tensor(options, device=video.device)
        return torch.cat([video.mean(dim=(2, 3, 4)), given[None]], dim=1)


@pytest.fixture(scope="module")
def i3d(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d.pt"
    torch.jit.script(Features()).save(str(path))
    return path


def test_video_features_see_grey_levels_and_ask_for_features(i3d):
    video = random.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    assert VideoFeatures(i3d)(video) == pytest.approx([*video.mean((0, 1, 2)), 1, 1, 1], rel=1e-6)


def test_video_features_refuse(i3d, tmp_path):
    with pytest.raises(InputError, match="9 frames is too short for FVD: give 10 or more"):
        VideoFeatures(i3d)(np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"no FVD weights at .*none\.pt: give i3d_torchscript\.pt, from .*https://"):
        VideoFeatures(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("nothing")
    with pytest.raises(InputError, match=r"text\.pt is no TorchScript module"):
        VideoFeatures(tmp_path / "text.pt")
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "relu.pt"))
    with pytest.raises(InputError, match=r"relu\.pt cannot be used for FVD"):
        VideoFeatures(tmp_path / "relu.pt")(np.zeros((10, 8, 8, 3), np.uint8))


def test_lpips_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no LPIPS weights at .*https://download\.pytorch\.org.*alexnet"):
        Lpips(tmp_path / "none.pth")
    monkeypatch.setitem(sys.modules, "lpips", None)
    (tmp_path / "alexnet.pth").touch()
    with pytest.raises(InputError, match=r"lpips cannot be imported .*: install the package lpips, and a torch"):
        Lpips(tmp_path / "alexnet.pth")


class StubLpips(torch.nn.Module):
    """Takes and gives what the package's class does: slices that keep torchvision's numbers, pictures in -1…1."""

    def __init__(self, net, pnet_rand=False, verbose=True):
        super().__init__()
        assert pnet_rand, "else the package downloads the backbone"
        sizes = {"alex": (11, 4), "vgg": (3, 1)}[net]
        self.net = torch.nn.Module()
        self.net.slice1 = torch.nn.Sequential(torch.nn.Conv2d(3, 64, *sizes))
        self.net.slice2 = torch.nn.Sequential()
        self.net.slice2.add_module("5", torch.nn.Conv2d(64, 2, 1))

    def forward(self, one, two):
        assert not self.training
        one, two = (self.net.slice2(self.net.slice1(picture)) for picture in (one, two))
        return (one - two).square().mean().view(1, 1, 1, 1)


@pytest.mark.parametrize(("side", "stride"), [(11, 4), (3, 1)], ids=["alexnet", "vgg16"])
def test_lpips_gets_the_files_weights_and_each_frame_in_its_range(side, stride, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=StubLpips))
    first, second = torch.randn(64, 3, side, side), torch.randn(2, 64, 1, 1)
    tensors = {"features.0.weight": first, "features.0.bias": torch.randn(64)}
    tensors |= {"features.5.weight": second, "features.5.bias": torch.randn(2), "classifier.1.weight": torch.zeros(3)}
    torch.save(tensors, tmp_path / "net.pth")
    made, truth = (random.integers(0, 256, (2, 40, 32, 3), dtype=np.uint8) for _ in range(2))
    # The layers are linear: only the difference of the pictures counts, 255 grey levels being 2.
    difference = (made.astype(np.float64) - truth) * 2 / 255
    views = np.lib.stride_tricks.sliding_window_view(difference, (side, side), (1, 2))[:, ::stride, ::stride]
    kernel = np.einsum("oi,icyx->ocyx", second[..., 0, 0].double().numpy(), first.double().numpy())
    expected = (np.einsum("fhwcyx,ocyx->fhwo", views, kernel) ** 2).mean((1, 2, 3))
    ours = Lpips(tmp_path / "net.pth")
    assert ours(made, truth) == pytest.approx(expected, rel=1e-4)
    assert ours(truth, truth) == pytest.approx([0, 0])
    with pytest.raises(InputError, match="31 x 40 are too small for LPIPS"):
        ours(made[:, :, 1:], truth[:, :, 1:])
    for damage in ({"features.5.weight": None}, {"features.5.bias": torch.zeros(3)}):
        changed = {name: tensor for name, tensor in (tensors | damage).items() if tensor is not None}
        torch.save(changed, tmp_path / "half.pth")
        with pytest.raises(InputError, match=r"half\.pth is no AlexNet or VGG-16"):
            Lpips(tmp_path / "half.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth is no AlexNet or VGG-16"):
        Lpips(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_lpips_is_its_authors_own(name, tmp_path, monkeypatch):
    """Against the package used as its authors do, with torchvision's download replaced by the same random weights."""
    models = pytest.importorskip("torchvision").models
    package = pytest.importorskip("lpips")
    torch.manual_seed(0)
    backbone = getattr(models, name)(weights=None)
    torch.save({key: value for key, value in backbone.state_dict().items() if "features" in key}, tmp_path / "net.pth")
    ours = Lpips(tmp_path / "net.pth")
    monkeypatch.setattr(f"lpips.pretrained_networks.tv.{name}", lambda pretrained: backbone)
    theirs = package.LPIPS(net=name[:4].removesuffix("1"), verbose=False)
    made, truth = (random.integers(0, 256, (2, 64, 48, 3), dtype=np.uint8) for _ in range(2))
    pixels = [torch.from_numpy(video).movedim(-1, 1).float() / 255 for video in (made, truth)]
    expected = theirs(*pixels, normalize=True).flatten().detach().numpy()
    assert ours(made, truth) == pytest.approx(expected, rel=1e-4)
    assert ours(truth, truth) == pytest.approx([0, 0], abs=1e-7)
