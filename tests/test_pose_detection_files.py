"""Files of the two networks, and where they run."""

import logging
import sys
import weakref
import zipfile
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from dwpose_stubs import Detector, Keypoints, save_torchscript
from onnx import TensorProto, helper
from pose_networks import DETECTOR, KEYPOINTS, STUBS

from unianimate_core.errors import InputError
from unianimate_core.pose.detection import PoseDetector
from unianimate_core.pose.detection.providers import choose_providers, choose_torch_device, warn_once

GOLDEN = np.load(STUBS / "dwpose.npz")
CUDA, TENSORRT, DIRECTML, COREML, CPU = (
    f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "Dml", "CoreML", "CPU")
)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


def other_network(path):
    """A network of another kind: pictures to a thousand classes."""
    values = [
        helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 224, 224]),
        helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 1, 1]),
    ]
    graph = helper.make_graph([helper.make_node("GlobalAveragePool", ["data"], ["out"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def seventeen_points(path):
    model = onnx.load(KEYPOINTS)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(17), "first"))
    for output in model.graph.output:
        next(node for node in model.graph.node if output.name in node.output).output[0] = f"{output.name}_all"
        model.graph.node.append(helper.make_node("Gather", [f"{output.name}_all", "first"], [output.name], axis=1))
        output.type.tensor_type.shape.dim[1].dim_value = 17
    onnx.save(model, path)


def cut(share):
    return lambda path: path.write_bytes(KEYPOINTS.read_bytes()[: int(KEYPOINTS.stat().st_size * share)])


def zipped(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "hello")


def pickled(path):
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)


def torch_checkpoint(path):
    torch.save({"a": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut(0.01), r"cannot be loaded by onnxruntime .* truncated.* download dw-ll_ucoco_384.onnx again"),
        (cut(0.5), "truncated"),
        (cut(0.999), "truncated"),
        (lambda path: path.write_bytes(b""), "is empty: download dw-ll_ucoco_384.onnx again"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "There is no file .* of the keypoint network"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "no ONNX network"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        (lambda path: path.write_text("hello world " * 20), "no ONNX network"),
        (
            lambda path: path.write_bytes(DETECTOR.read_bytes()),
            "is the person detector, not the keypoint network: .*swap",
        ),
        (other_network, "another network: it takes 1 × 3 × 224 × 224 and gives 1 × 3 × 1 × 1, not n × 3 × 384 × 288"),
        (seventeen_points, "gives 1 × 17 × 576, 1 × 17 × 768, not .* n × 133 × 576"),
        (zipped, "no TorchScript network"),
        (torch_checkpoint, "no TorchScript network"),
        (pickled, "PyTorch checkpoint, not a TorchScript network"),
    ],
)
def test_a_file_that_is_no_keypoint_network_is_named_with_what_to_do(tmp_path, make, message):
    path = tmp_path / "file.onnx"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        PoseDetector(DETECTOR, path)
    assert str(path) in str(caught.value)


def test_swapped_files_are_told():
    with pytest.raises(InputError, match=r"pose_stub.onnx is the keypoint network, not the person detector"):
        PoseDetector(KEYPOINTS, DETECTOR)


def test_a_file_may_leave_all_shapes_open(tmp_path, monkeypatch):
    model = onnx.load(DETECTOR)
    for value in (*model.graph.input, *model.graph.output):
        for number, side in enumerate(value.type.tensor_type.shape.dim):
            side.dim_param = f"{value.name}_{number}"
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    detector = PoseDetector(path, KEYPOINTS)
    people = detector.detect(GOLDEN["1.image_rgb"])
    np.testing.assert_allclose(people.boxes, GOLDEN["1.boxes"], rtol=0, atol=0.01)
    monkeypatch.setattr(detector._detector, "_run", lambda pictures: [np.zeros((1, 8400, 84), np.float32)])
    with pytest.raises(InputError, match=r"open.onnx is not the person detector .* gave 1 × 8400 × 84 instead of"):
        detector.detect(GOLDEN["1.image_rgb"])


@pytest.mark.parametrize("batch", [-1, 5])
def test_torchscript_files_give_the_golden_data(tmp_path, monkeypatch, batch):
    monkeypatch.setattr("shutil.which", lambda name: None)  # no NVIDIA driver
    detector = save_torchscript(Detector(), tmp_path / "yolox_l.torchscript.pt")
    keypoints = save_torchscript(Keypoints(batch), tmp_path / "dw.torchscript.pt", 2 if batch == -1 else batch)
    networks = PoseDetector(detector, keypoints)
    assert networks.providers == ["TorchScript on cpu"]
    assert networks.device_note is None
    people = networks.detect(GOLDEN["1.image_rgb"])
    np.testing.assert_allclose(people.boxes, GOLDEN["1.boxes"], rtol=0, atol=0.01)
    np.testing.assert_allclose(people.scores, GOLDEN["1.scores"], rtol=0, atol=1e-4)
    # Other sums than onnxruntime's: two places that score the same but for the last bit may change places.
    moved = np.abs(people.keypoints - GOLDEN["1.keypoints"]).max(-1) > 0.01
    assert moved.sum() <= 3


def test_torchscript_files_take_providers_as_onnx_files_do(tmp_path, monkeypatch):
    files = [save_torchscript(network, tmp_path / f"{n}.pt") for n, network in enumerate((Detector(), Keypoints()))]
    with pytest.raises(InputError, match="no provider 'abacus' in this PyTorch: choose from CPU, or install"):
        PoseDetector(*files, ["CPU", "abacus"])
    for missing in ("CUDA", "TensorRT", "DirectML"):
        with pytest.raises(InputError, match=f"no provider '{missing}' in this PyTorch"):
            PoseDetector(*files, missing)
    with pytest.raises(InputError, match="is empty"):
        PoseDetector(*files, [])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    note = PoseDetector(*files).device_note
    assert "runs on the CPU by PyTorch" in note
    assert "though there is an NVIDIA card: install a PyTorch that is built for CUDA" in note
    assert PoseDetector(*files, ["cpu"]).device_note is None, "that is what was asked for"
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "For this graphics card give the ONNX files" in PoseDetector(*files).device_note


@pytest.mark.parametrize(
    ("asked", "device"), [(None, "cuda"), ("TensorRT", "cuda"), (["CPU", "CUDA"], "cpu"), ([CUDA], "cuda")]
)
def test_torchscript_files_run_on_cuda_where_pytorch_has_it(monkeypatch, asked, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_torch_device(asked).type == device


def test_torchscript_files_may_be_half_precision_and_stand_beside_onnx(tmp_path):
    path = save_torchscript(Keypoints(), tmp_path / "dw.pt")
    torch.jit.load(str(path)).half().save(str(path))
    networks = PoseDetector(DETECTOR, path, ["cpu"])
    assert networks.providers == [CPU, "TorchScript on cpu"]
    people = networks.detect(GOLDEN["1.image_rgb"])
    np.testing.assert_allclose(people.scores, GOLDEN["1.scores"], rtol=0, atol=0.02)


def test_swapped_torchscript_files_are_told(tmp_path):
    detector = save_torchscript(Detector(), tmp_path / "detector.pt")
    keypoints = save_torchscript(Keypoints(), tmp_path / "keypoints.pt")
    with pytest.raises(InputError, match=r"keypoints.pt is the keypoint network, not the person detector: .* swapped"):
        PoseDetector(keypoints, detector)
    with pytest.raises(InputError, match=r"detector.pt is the person detector, not the keypoint network: .* swapped"):
        PoseDetector(detector, detector)
    blurred = save_torchscript(torch.nn.AvgPool2d(2), tmp_path / "blur.pt")
    with pytest.raises(InputError, match=r"blur.pt is not the person detector .* another network: .*2 × 3 × 320 × 320"):
        PoseDetector(blurred, keypoints)
    linear = save_torchscript(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 384 * 288, 1)), tmp_path / "l.pt"
    )
    with pytest.raises(InputError, match=r"l.pt is not the person detector .* 640 × 640"):
        PoseDetector(linear, keypoints)


@pytest.mark.parametrize(
    ("asked", "installed", "chosen"),
    [
        (None, [TENSORRT, CUDA, CPU], [CUDA, TENSORRT, CPU]),
        (None, [CPU, COREML, DIRECTML, TENSORRT, CUDA], [CUDA, TENSORRT, DIRECTML, COREML, CPU]),
        (None, ["AzureExecutionProvider", CPU], [CPU]),
        (["cuda", "CPU"], [TENSORRT, CUDA, CPU], [CUDA, CPU]),
        ([TENSORRT, "CUDAExecutionProvider"], [TENSORRT, CUDA, CPU], [TENSORRT, CUDA]),
        (["DirectML"], [DIRECTML, CPU], [DIRECTML]),
        (["dml"], [DIRECTML, CPU], [DIRECTML]),
        ("TensorRT", [TENSORRT, CPU], [TENSORRT]),
    ],
)
def test_providers_are_chosen_in_order(asked, installed, chosen):
    assert choose_providers(asked, installed) == chosen


def test_providers_that_are_unknown_or_missing_are_input_errors():
    with pytest.raises(InputError, match=r"no provider 'CUDA' in this onnxruntime: choose from .*CPU"):
        PoseDetector(DETECTOR, KEYPOINTS, ["CUDA"])
    with pytest.raises(InputError, match="no provider 'abacus'"):
        PoseDetector(DETECTOR, KEYPOINTS, ["CPU", "abacus"])
    with pytest.raises(InputError, match="is empty"):
        PoseDetector(DETECTOR, KEYPOINTS, [])


def pretend_runtime(monkeypatch, installed, starts):
    """An onnxruntime with other providers, each of which starts, raises, or falls to the CPU without a word."""
    tried = []

    def session(path, options, providers, enable_fallback):
        name = providers[0][0]
        tried.append(name)
        if starts.get(name) == "raises":
            raise RuntimeError("no such driver\nand a long story")
        real = onnxruntime.InferenceSession(path, options, providers=[CPU])
        if starts.get(name) == "starts":
            real.get_providers = lambda: [name, CPU]
        return real

    fake = SimpleNamespace(
        __version__="9.9",
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=session,
        get_available_providers=lambda: installed,
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return tried


def test_a_fall_to_the_cpu_is_told_once(monkeypatch, caplog):
    warn_once.cache_clear()
    tried = pretend_runtime(monkeypatch, [TENSORRT, CUDA, CPU], {TENSORRT: "raises"})
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            detector = PoseDetector(DETECTOR, KEYPOINTS)
    assert tried[:2] == [CUDA, TENSORRT]
    assert detector.providers == [CPU]
    for part in (
        "runs on the CPU",
        "onnxruntime 9.9",
        "CUDA did not start (its lib",
        "Tensorrt did not start (no such",
    ):
        assert part in detector.device_note
    assert "long story" not in detector.device_note
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [detector.device_note]
    assert f"runs on {CPU}" in caplog.text
    assert detector.detect(GOLDEN["1.image_rgb"]).found


def test_the_first_that_starts_is_used_and_nothing_to_tell(monkeypatch):
    pretend_runtime(monkeypatch, [TENSORRT, CUDA, CPU], {CUDA: "starts"})
    detector = PoseDetector(DETECTOR, KEYPOINTS)
    assert (detector.providers, detector.device_note) == ([CUDA], None)
    people = list(detector.detect_frames([GOLDEN["0.image_rgb"], GOLDEN["1.image_rgb"]]))
    np.testing.assert_allclose(people[1].keypoints, GOLDEN["1.keypoints"], rtol=0, atol=0.01)


@pytest.mark.parametrize(("provider", "let_go"), [(CUDA, True), (DIRECTML, True), (TENSORRT, False), (CPU, False)])
def test_memory_of_a_card_is_given_back_and_taken_again(monkeypatch, provider, let_go):
    """TensorRT takes minutes to start: it is kept. On the processor there is nothing to give back."""
    tried = pretend_runtime(monkeypatch, [provider, CPU] if provider != CPU else [CPU], {provider: "starts"})
    detector = PoseDetector(DETECTOR, KEYPOINTS)
    assert detector.providers == [provider]
    files = DETECTOR.stat().st_size + KEYPOINTS.stat().st_size
    assert files < detector.card_memory < 2**32 if provider != CPU else detector.card_memory == 0
    sessions = [weakref.ref(network._session) for network in (detector._detector, detector._keypoints)]
    for starts in (2, 4):
        people = detector.detect(GOLDEN["1.image_rgb"])
        np.testing.assert_allclose(people.keypoints, GOLDEN["1.keypoints"], rtol=0, atol=0.01)
        assert tried == [provider] * (starts if let_go else 2)
        detector.release()
        detector.release()
        assert [session() is None for session in sessions] == [let_go] * 2


def test_a_card_that_has_no_memory_left_is_named(monkeypatch):
    starts = {CUDA: "starts"}
    pretend_runtime(monkeypatch, [CUDA, CPU], starts)
    detector = PoseDetector(DETECTOR, KEYPOINTS)
    detector.release()
    for fate, reason in {"raises": "no such driver", "falls to the CPU": "its libraries cannot be loaded"}.items():
        starts[CUDA] = fate
        with pytest.raises(InputError, match=rf"detector_stub.onnx does not start again on CUDA \({reason}\): free"):
            detector.detect(GOLDEN["1.image_rgb"])


def test_torchscript_networks_are_given_back_and_loaded_again(tmp_path):
    networks = PoseDetector(save_torchscript(Detector(), tmp_path / "d.pt"), KEYPOINTS)
    network = networks._detector
    network.release()
    assert network._module is not None, "the processor has nothing to give back"
    network.on_cpu = False  # as on a graphics card
    network.release()
    assert network._module is None
    people = networks.detect(GOLDEN["1.image_rgb"])
    np.testing.assert_allclose(people.boxes, GOLDEN["1.boxes"], rtol=0, atol=0.01)


def test_the_next_one_is_used_where_the_first_does_not_start(monkeypatch):
    tried = pretend_runtime(monkeypatch, [CPU, DIRECTML, CUDA], {DIRECTML: "starts"})
    detector = PoseDetector(DETECTOR, KEYPOINTS)
    assert tried[:2] == [CUDA, DIRECTML]
    assert detector.providers == [DIRECTML]
    assert "runs on the Dml" in detector.device_note


def test_a_gpu_that_onnxruntime_cannot_use_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU 7000")
    monkeypatch.setattr(torch.version, "hip", None)
    note = PoseDetector(DETECTOR, KEYPOINTS).device_note
    assert "though there is GPU 7000: install onnxruntime-gpu" in note
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert "onnxruntime-migraphx" in PoseDetector(DETECTOR, KEYPOINTS).device_note
    assert PoseDetector(DETECTOR, KEYPOINTS, ["CPU"]).device_note is None, "that is what was asked for"


def test_a_missing_onnxruntime_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime cannot be imported.*onnxruntime-gpu"):
        PoseDetector(DETECTOR, KEYPOINTS)
