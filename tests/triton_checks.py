"""The selective scan by the equations, and checks of the Triton kernels, each in a process of its own."""

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import torch

from unianimate_core.ssm import Branch, selective_scan


def random_branch(rows, frames, channels, states, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    decay = -torch.rand(channels, states, generator=generator, dtype=torch.float64) * states
    u, delta = normal(rows, frames, channels), normal(rows, frames, channels) * 2 - 3
    B, C = normal(rows, frames, states), normal(rows, frames, states)
    return Branch(*(t.to(dtype) for t in (u, delta, decay, B, C, normal(channels))))


def scan_by_the_equations(branch, backwards=False):
    """float64, one number after the other in time; NumPy."""
    u, delta, A, B, C, D = (tensor.detach().double().numpy() for tensor in branch)
    step = np.logaddexp(0, delta)
    h, y = np.zeros((len(u), *A.shape)), np.empty_like(u)
    for t in range(u.shape[1])[:: -1 if backwards else 1]:
        h = np.exp(step[:, t, :, None] * A) * h + (step[:, t] * u[:, t])[..., None] * B[:, t, None]
        y[:, t] = (h * C[:, t, None]).sum(-1) + D * u[:, t]
    return torch.from_numpy(y)


def sum_by_the_equations(forward, backward, z):
    y = scan_by_the_equations(forward) + scan_by_the_equations(backward, backwards=True)
    z = z.double()
    return y * z / (1 + torch.exp(-z))


def error(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def values():
    """In Triton's interpreter, against the equations."""
    # The interpreter cuts bfloat16 off where a card rounds.
    cases = ((torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3))
    for dtype, tolerance in cases:
        for shape in ((2, 3, 10, 16), (1, 4, 3, 5), (1, 2, 66, 2)):
            forward, backward = (random_branch(*shape, seed, dtype) for seed in (0, 1))
            z = random_branch(*shape, 2, dtype).u
            assert error(selective_scan(forward, implementation="triton"), scan_by_the_equations(forward)) < tolerance
            y = selective_scan(forward, backward, z, "triton")
            assert y.dtype == dtype
            assert error(y, sum_by_the_equations(forward, backward, z)) < tolerance


def gradients():
    """In Triton's interpreter, against the plain scan, which gradcheck has seen; rows in groups, frames in chunks."""
    half = torch.bfloat16
    cases = (
        ((5, 6, 3, 16), True, torch.float32, 1e-5),
        ((1, 4, 35, 3), True, torch.float32, 1e-5),
        ((2, 2, 2, 1), False, torch.float32, 1e-5),
        ((2, 6, 3, 16), True, half, 2e-2),  # the interpreter cuts off where PyTorch rounds
    )
    for shape, both, dtype, tolerance in cases:
        results = []
        for implementation in ("triton", "torch"):
            leaves = [tensor.requires_grad_() for seed in (0, 1) for tensor in random_branch(*shape, seed, dtype)]
            z = random_branch(*shape, 2, dtype).u.requires_grad_()
            given = leaves if both else leaves[:6]
            y = selective_scan(Branch(*given[:6]), Branch(*given[6:]) if both else None, z, implementation)
            y.backward(random_branch(*shape, 3, dtype).u)
            results.append([leaf.grad for leaf in (*given, z)])
        for one, other in zip(*results, strict=True):
            assert error(one, other) < tolerance
    strided_gradients()


def strided_gradients():
    """As a layer gives them: B and C parts of one projection, z half of another, dy frame-last."""
    rows, frames, channels, states = shape = 2, 5, 3, 4
    results = []
    for implementation in ("triton", "torch"):
        leaves, branches = [], []
        for seed in (0, 1):
            branch = random_branch(*shape, seed)
            projected = torch.cat((branch.u[..., :1], branch.B, branch.C), -1).requires_grad_()
            u, delta, A, D = (t.requires_grad_() for t in (branch.u, branch.delta, branch.A, branch.D))
            _, B, C = projected.split((1, states, states), dim=-1)
            branches.append(Branch(u, delta, A, B, C, D))
            leaves += [u, delta, A, projected, D]
        both = torch.cat((random_branch(*shape, 2).u, random_branch(*shape, 3).u), -1).requires_grad_()
        y = selective_scan(*branches, both.chunk(2, dim=-1)[1], implementation)
        y.backward(random_branch(rows, channels, frames, states, 4).u.mT)
        results.append([leaf.grad for leaf in (*leaves, both)])
    for one, other in zip(*results, strict=True):
        assert error(one, other) < 1e-5


def layouts():
    """In Triton's interpreter: B and C as parts of one projection, z as half of another, u and delta transposed."""
    rows, frames, channels, states = 2, 3, 6, 4
    forward, backward = (random_branch(rows, frames, channels, states, seed) for seed in (0, 1))
    z = random_branch(rows, frames, channels, states, 2).u
    expected = sum_by_the_equations(forward, backward, z)

    def strided(branch):
        projected = torch.cat((torch.zeros(rows, frames, 3), branch.B, branch.C), -1)
        B, C = projected[..., 3:].split(states, -1)
        return branch._replace(u=branch.u.mT.contiguous().mT, delta=branch.delta.mT.contiguous().mT, B=B, C=C)

    wide = torch.cat((z, z), -1)[..., channels:]
    assert error(selective_scan(strided(forward), strided(backward), wide, "triton"), expected) < 1e-5
    assert error(selective_scan(strided(forward), backward, z.mT.contiguous().mT, "triton"), expected) < 1e-5


def compiles():
    """For a card that is not here: both kernels fit in its registers."""
    import triton.backends
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as build

    from unianimate_core.ssm import triton_kernels, triton_scan

    shared = {"STATES": 16}
    forward = shared | {"BLOCK": triton_scan.BLOCK, "BOTH": True, "GATED": True, "STAGES": triton_scan.STAGES}
    backward = shared | {"BLOCK": triton_scan.BACKWARD_BLOCK}
    integers = {"z_row", "z_frame", "b_row", "b_frame", "rows", "frames", "channels", "states"}
    odd = {"b_row", "b_frame", "rows", "frames", "B0", "B1", "C0", "C1"}  # all others are multiples of 16
    tool = next(Path(triton.backends.__file__).parent.rglob("cuobjdump*"))
    for kernel, constants, warps in (
        (triton_kernels.forward_kernel, forward, triton_scan.WARPS),
        (triton_kernels.backward_kernel, backward, triton_scan.BACKWARD_WARPS),
    ):
        names = list(signature(kernel.fn).parameters)
        types = {name: "i32" if name in integers else "*bf16" for name in names}
        types |= {name: "*fp32" for name in names if re.match("decay|dA|dB|dC|dD|D|saved", name)}
        types |= {name: "constexpr" for name in constants}
        aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in odd | {*constants}}
        fixed = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, types, fixed, aligned)
        options = {"num_warps": warps, "enable_fp_fusion": True}
        compiled = build(source, target=GPUTarget("cuda", 90, 32), options=options)
        Path(sys.argv[2]).write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([tool, "-res-usage", sys.argv[2]], capture_output=True, text=True, check=True).stdout
        assert re.search(r"REG:\d+ STACK:0 ", usage), usage  # the stack is where states would be spilled to


if __name__ == "__main__":
    for name in sys.argv[1].split():
        {check.__name__: check for check in (values, gradients, layouts, compiles)}[name]()
