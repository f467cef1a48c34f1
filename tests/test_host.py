"""The harness itself: what it tells of a real ComfyUI, by core nodes and one probe node."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from comfy_host import Host
from comfy_server import ComfyServer, PromptFailed, PromptInterrupted, PromptRejected, ServerFailed
from PIL import Image

PROBE = '''
import time
from types import SimpleNamespace

import comfy.latent_formats
import latent_preview
import torch


class Probe:
    """Makes progress and previews by the callback that samplers use, on a video of 4 frames."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"steps": ("INT", {}), "seconds": ("FLOAT", {}), "fail": ("BOOLEAN", {})}}

    def run(self, steps, seconds, fail):
        model = SimpleNamespace(latent_format=comfy.latent_formats.SD15())
        callback = latent_preview.prepare_callback(SimpleNamespace(load_device=torch.device("cpu"), model=model), steps)
        for step in range(steps):
            time.sleep(seconds)
            latent = torch.zeros(4, 4, 8, 16)  # f c h w
            callback(step, latent, latent, steps)
        if fail:
            raise ValueError("failed on purpose")
        return (torch.zeros(1, 8, 8, 3),)


NODE_CLASS_MAPPINGS = {"Probe": Probe}
'''


def make_pack(folder: Path, source: str) -> Path:
    folder.mkdir()
    (folder / "__init__.py").write_text(source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(comfy_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    folder = tmp_path_factory.mktemp("probe")
    with ComfyServer(comfy_host, folder / "base", pack=make_pack(folder / "pack", PROBE)) as server:
        yield server


def save_image(color: int = 0) -> dict[str, Any]:
    image = {"width": 16, "height": 8, "batch_size": 2, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "smoke"}},
    }


def probe(steps: int = 1, seconds: float = 0.0, fail: bool = False) -> dict[str, Any]:
    return {
        "1": {"class_type": "Probe", "inputs": {"steps": steps, "seconds": seconds, "fail": fail}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_object_info(server: ComfyServer):
    assert server.object_info("Probe")["output"] == ["IMAGE"]
    assert {"Probe", "KSampler", "SDPoseDrawKeypoints"} <= server.object_info().keys()
    with pytest.raises(KeyError):
        server.object_info("NoSuchNode")


def test_new_model_file_is_seen_at_once(server: ComfyServer):
    folder = server.base / "models" / "vae"
    folder.mkdir()
    (folder / "new.safetensors").write_bytes(b"")
    assert "new.safetensors" in str(server.object_info("VAELoader")["input"])


def test_image_is_saved(server: ComfyServer):
    run = server.queue(save_image(color=0x00FF00))
    assert run.executed == ["1", "2"]
    files = server.output_files(run)
    assert [file.parent for file in files] == [server.base / "output"] * 2
    with Image.open(files[0]) as image:
        assert image.size == (16, 8)
        assert image.getpixel((0, 0)) == (0, 255, 0)


def test_input_file(server: ComfyServer):
    picture = io.BytesIO()
    Image.new("RGB", (6, 4)).save(picture, "PNG")
    prompt = save_image()
    prompt["1"] = {"class_type": "LoadImage", "inputs": {"image": server.put_input("in.png", picture.getvalue())}}
    with Image.open(server.output_files(server.queue(prompt))[0]) as image:
        assert image.size == (6, 4)


def test_second_time_is_cached_until_freed(server: ComfyServer):
    server.queue(save_image(color=2))
    again = server.queue(save_image(color=2))
    assert again.executed == []
    assert set(again.cached) == {"1", "2"}
    server.free()
    time.sleep(2)
    assert server.queue(save_image(color=2)).executed == ["1", "2"]


def test_invalid_prompt_is_rejected(server: ComfyServer):
    prompt = save_image()
    prompt["1"]["inputs"]["width"] = -1
    with pytest.raises(PromptRejected, match="smaller than min") as rejection:
        server.queue(prompt)
    assert rejection.value.node_errors["1"]["class_type"] == "EmptyImage"


def test_partly_invalid_prompt_is_rejected(server: ComfyServer):
    prompt = save_image(color=3)
    prompt["3"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "no images"}}
    with pytest.raises(PromptRejected, match="Required input is missing"):
        server.queue(prompt)


def test_exception_in_a_node(server: ComfyServer):
    with pytest.raises(PromptFailed) as failure:
        server.queue(probe(fail=True))
    assert failure.value.node_type == "Probe"
    assert failure.value.exception_type == "ValueError"
    assert failure.value.exception_message.strip() == "failed on purpose"
    assert "in run" in failure.value.traceback
    assert "failed on purpose" in server.log()


def test_progress_without_previews(server: ComfyServer):
    run = server.queue(probe(steps=3, seconds=0.15))
    assert run.progress["1"] == [(1, 3), (2, 3), (3, 3)]
    assert run.previews == []


def test_previews_on_request(server: ComfyServer):
    run = server.queue(probe(steps=2), preview_method="latent2rgb")
    assert len(run.previews) == 2
    with Image.open(io.BytesIO(run.previews[0])) as image:
        assert image.width == 2 * image.height  # one frame of the four, 16 × 8 latent pixels


def test_interrupt(server: ComfyServer):
    handle = server.start(probe(steps=1000, seconds=0.05))
    handle.wait_until(lambda run: "1" in run.progress, timeout=30)
    server.interrupt()
    with pytest.raises(PromptInterrupted) as interruption:
        handle.wait(timeout=30)
    assert interruption.value.node_id == "1"
    assert server.queue(probe()).executed[-1] == "2"  # and the next prompt runs


def test_timeout(server: ComfyServer):
    handle = server.start(probe(steps=1001, seconds=0.05))
    with pytest.raises(TimeoutError):
        handle.wait(timeout=0.5)
    server.interrupt()
    with pytest.raises(PromptInterrupted):
        handle.wait(timeout=30)


def test_broken_pack_and_stopping(comfy_host: Host, tmp_path: Path):
    pack = make_pack(tmp_path / "pack", "import no_such_module")
    server = ComfyServer(comfy_host, tmp_path / "base", pack=pack)
    with pytest.raises(ServerFailed, match="No module named 'no_such_module'"):
        server.__enter__()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
