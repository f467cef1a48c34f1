"""What whole runs of the training share."""

import pytest
from accelerate.state import AcceleratorState, GradientState
from training_run import config_of, make_videos, on_one_core  # noqa: F401  (a fixture of every test here)

from unianimate_core.training.loop import Trainer


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps a process's settings, precision among them."""
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Videos with a filled cache, so that most runs need no autoencoder."""
    folder = tmp_path_factory.mktemp("data")
    make_videos(folder / "videos")
    Trainer(config_of(folder))
    AcceleratorState._reset_state(True)
    return folder


@pytest.fixture
def where(data, tmp_path):
    """A folder for runs on those videos."""
    return {"data.folder": str(data / "videos"), "data.cache": str(data / "cache")}
