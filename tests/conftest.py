"""Fixtures of many tests: one thread, and a real ComfyUI; see comfy_host.py and comfy_server.py."""

import os
from collections.abc import Iterator

import pytest
import torch
from comfy_host import Host, HostUnavailable, find_or_make_host
from comfy_server import ComfyServer
from graphs import (
    ASSETS,
    DRIVING_FRAMES,
    GOLDEN,
    IMAGE,
    PROBE,
    ROOT,
    SMALL_VAE,
    TOKENS,
    picture_of_working_size,
    put_picture,
    put_video,
)
from PIL import Image
from safetensors.torch import save_file
from synthetic import golden_weights


@pytest.fixture(scope="module")
def one_thread():
    """On tiny tensors, threads wait for each other more than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def comfy_host(pytestconfig: pytest.Config) -> Host:
    """A ComfyUI to run; tests are skipped where there is none, and fail on CI."""
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"\n{line}")

    try:
        return find_or_make_host(say)
    except HostUnavailable as reason:
        message = f"No ComfyUI to test in. {reason}"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)


@pytest.fixture(scope="session")
def comfy(comfy_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running server with our pack, small synthetic weights, and a pack of probes; shared by all tests."""
    base = tmp_path_factory.mktemp("comfyui")
    models = base / "models" / "diffusion_models"
    models.mkdir(parents=True)
    weights = golden_weights()
    save_file(weights, models / "bare.safetensors")
    save_file(weights | {"empty_prompt": TOKENS}, models / "golden.safetensors")
    torch.save({"state_dict": weights | {"empty_prompt": TOKENS}, "step": 1}, models / "golden.pth")
    (models / "broken.safetensors").write_bytes((models / "bare.safetensors").read_bytes()[:1_000_000])
    (models / "vae.safetensors").write_bytes((ASSETS / "vae" / SMALL_VAE).read_bytes())
    detectors = base / "models" / "dwpose"
    detectors.mkdir()
    for name, stub in {"yolox_l.onnx": "detector_stub.onnx", "dw-ll_ucoco_384.onnx": "pose_stub.onnx"}.items():
        (detectors / name).write_bytes((GOLDEN / "dwpose" / stub).read_bytes())
    save_file({"text": TOKENS[None], "image": IMAGE}, base / "probe.safetensors")
    probe = base / "custom_nodes" / "probe"
    probe.mkdir(parents=True)
    (probe / "__init__.py").write_text(PROBE)
    with ComfyServer(comfy_host, base) as server:
        put_picture(server, "reference.png", Image.fromarray(picture_of_working_size()))
        server.put_input("person.jpg", ROOT / "samples" / "person.jpg")
        put_video(server, "dance.mp4", DRIVING_FRAMES)
        yield server
