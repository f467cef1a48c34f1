"""Fixtures of the tests that run in a real ComfyUI; see comfy_host.py and comfy_server.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_host import Host, HostUnavailable, find_or_make_host
from comfy_server import ComfyServer


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
def comfy_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder of the shared server. Put model files in it at any time: the server sees new files at once."""
    models = tmp_path_factory.mktemp("comfyui") / "models"
    models.mkdir()
    return models


@pytest.fixture(scope="session")
def comfy(comfy_host: Host, comfy_models: Path) -> Iterator[ComfyServer]:
    """A running server with our pack, shared by all tests."""
    with ComfyServer(comfy_host, comfy_models.parent) as server:
        yield server
