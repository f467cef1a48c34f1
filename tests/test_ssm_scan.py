"""The selective scan: every implementation against the equations in float64, against others, and in its cost."""

import os
import subprocess
import sys
import types
from importlib.util import find_spec

import pytest
import torch
from graphs import ROOT
from synthetic import relative_error
from torch.utils._python_dispatch import TorchDispatchMode
from triton_checks import random_branch, scan_by_the_equations, sum_by_the_equations

from unianimate_core import InputError
from unianimate_core.ssm import Branch, describe_scan, plain, scan, scan_implementations, selective_scan

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", [(3, 9, 5, 16), (7, 33, 20, 16), (1, 1, 1, 1), (2, 361, 3, 4)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float64, 1e-12)]
)
def test_plain_scan_equals_the_equations(shape, dtype, tolerance, monkeypatch):
    monkeypatch.setitem(plain.GROUP_BYTES, "cpu", (2 * 8 * shape[2] * shape[3], 0))  # groups of two to four sequences
    forward, backward = (random_branch(*shape, seed, dtype) for seed in (0, 1))
    z = random_branch(*shape, 2, dtype).u
    assert relative_error(selective_scan(forward), scan_by_the_equations(forward)) < tolerance
    y = selective_scan(forward, backward, z)
    assert y.dtype == dtype
    assert y.is_contiguous()
    assert relative_error(y, sum_by_the_equations(forward, backward, z)) < tolerance


def test_gradients_of_the_plain_scan(monkeypatch):
    monkeypatch.setitem(plain.GROUP_BYTES, "cpu", (1, 2 * 8 * 6 * 2 * 3))  # a sequence or two at a time
    shape = (3, 5, 2, 3)
    tensors = [*random_branch(*shape, 0, torch.float64), *random_branch(*shape, 1, torch.float64)]
    tensors.append(random_branch(*shape, 2, torch.float64).u)
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def both(*given):
        return selective_scan(Branch(*given[:6]), Branch(*given[6:12]), given[12])

    assert torch.autograd.gradcheck(both, leaves)
    assert torch.autograd.gradcheck(lambda *given: selective_scan(Branch(*given)), leaves[:6])


def test_the_scan_is_one_operation_to_autograd_and_compiler():
    shape = (2, 4, 3, 2)
    forward, backward = (random_branch(*shape, seed) for seed in (0, 1))
    tensors = [tensor.requires_grad_() for tensor in (*forward, *backward)]
    torch.library.opcheck(
        torch.ops.unianimate.selective_scan.default, (tensors, random_branch(*shape, 2).u.requires_grad_(), "torch")
    )
    dy = torch.randn(shape[:3]).mT.contiguous().mT
    z = random_branch(*shape, 2).u.mT.contiguous().mT
    given = [tensor.detach() for tensor in tensors]
    torch.library.opcheck(torch.ops.unianimate.selective_scan_backward.default, (dy, given, z, "torch"))
    with torch.device("meta"):
        meta = [torch.empty(tensor.shape) for tensor in tensors]
    assert selective_scan(Branch(*meta[:6]), Branch(*meta[6:])).shape == forward.u.shape


def test_gradients_keep_the_inputs_precisions_under_autocast():
    shape = (2, 5, 4, 3)
    branch = random_branch(*shape, 0)
    half = branch._replace(u=branch.u.bfloat16(), delta=branch.delta.bfloat16())
    leaves = Branch(*(tensor.detach().requires_grad_() for tensor in half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = selective_scan(leaves)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert [leaf.grad.dtype for leaf in leaves] == [leaf.dtype for leaf in leaves]
    wide = Branch(*(tensor.detach().float().requires_grad_() for tensor in half))
    selective_scan(wide).square().sum().backward()
    for one, other in zip(leaves, wide, strict=True):
        assert relative_error(one.grad, other.grad) < 1e-2


class Counter(TorchDispatchMode):
    """Values that operations write, and the largest tensor among them."""

    def __init__(self):
        super().__init__()
        self.values = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and func is not torch.ops.aten.empty.memory_format:
            self.values += out.numel()
            self.largest = max(self.largest, out.numel())
        return out


def test_the_plain_scan_is_linear_in_frames_and_never_holds_all_states():
    counts = []
    for frames in (32, 64, 128):
        branches = [random_branch(512, frames, 16, 16, seed) for seed in (0, 1)]
        with Counter() as counter:
            plain.scan(branches, branches[0].u)
        counts.append(counter.values)
        assert counter.largest < branches[0].u.numel() * 16 / 8
    assert counts[2] - counts[1] == pytest.approx(2 * (counts[1] - counts[0]), rel=1e-6)
    assert counts[2] < 4 * counts[0]


def test_what_scans_is_chosen_by_device_and_named():
    text = describe_scan("cpu")
    assert text.startswith("torch on cpu (mamba_ssm: runs on CUDA, not on cpu; triton: runs on CUDA")
    assert list(scan_implementations(torch.device("cpu"), torch.float32).values())[-1] == ""
    with pytest.raises(InputError, match="implementation is 'cuda': choose auto, mamba_ssm, triton, torch"):
        selective_scan(random_branch(1, 1, 1, 1, 0), implementation="cuda")


def test_the_log_names_what_the_compiler_may_take(monkeypatch, caplog):
    monkeypatch.setattr(scan, "scan_implementations", lambda *_: {"mamba_ssm": "", "triton": "absent", "torch": ""})
    scan._choice.cache_clear()
    branch = random_branch(2, 3, 4, 2, 0)
    with caplog.at_level("INFO"):  # mamba_ssm is no operation that a compiler knows
        torch.ops.unianimate.selective_scan(list(branch), None, "auto")
    scan._choice.cache_clear()
    assert caplog.messages == ["UniAnimate: selective scan: torch on cpu (triton: absent)"]


def test_the_kernel_of_mamba_ssm_is_given_its_own_layout(monkeypatch):
    """A stand-in for the package, which needs a GPU: its interface, b d l, by the equations."""

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        assert delta_softplus
        assert z is delta_bias is None
        assert all(t.is_contiguous() for t in (u, delta, B, C))
        step, h, y = torch.nn.functional.softplus(delta), 0, []
        for t in range(u.shape[2]):
            h = torch.exp(step[:, :, t, None] * A) * h + (step * u)[:, :, t, None] * B[:, None, :, t]
            y.append((h * C[:, None, :, t]).sum(-1))
        return torch.stack(y, 2) + D[:, None] * u

    interface = types.SimpleNamespace(selective_scan_fn=selective_scan_fn)
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", interface)
    monkeypatch.delitem(sys.modules, "unianimate_core.ssm.mamba_kernel", raising=False)
    shape = (2, 6, 4, 3)
    gradients = []
    for implementation in ("mamba_ssm", "torch"):
        leaves = [tensor.requires_grad_() for seed in (0, 1) for tensor in random_branch(*shape, seed)]
        z = random_branch(*shape, 2).u.requires_grad_()
        y = selective_scan(Branch(*leaves[:6]), Branch(*leaves[6:]), z, implementation)
        y.square().sum().backward()
        gradients.append([y.detach(), *(leaf.grad for leaf in (*leaves, z))])
    for one, other in zip(*gradients, strict=True):
        assert relative_error(one, other) < 1e-5
    sys.modules.pop("unianimate_core.ssm.mamba_kernel")


@pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton for this system")
@pytest.mark.parametrize("what", ["values gradients layouts", "compiles"])
def test_the_triton_kernels(tmp_path, what):
    """In a process of their own: Triton decides at its import whether it interprets."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"TRITON_INTERPRET": "0" if what == "compiles" else "1"}
    command = [sys.executable, str(ROOT / "tests" / "triton_checks.py"), what, str(tmp_path / "kernel")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
