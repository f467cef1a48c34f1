"""The selective scan's kernels, for very many short sequences.

A program holds the states of a block of channels of one sequence in registers and walks along its frames; neighbouring
threads have neighbouring channels, which is how frames lie in memory: n f c. Per frame and channel it reads u, delta
and z and writes y; B and C are shared by the channels. All arithmetic is in float32.
"""

import triton
import triton.language as tl


@triton.jit
def _softplus(x):
    """ln(1 + eˣ) = max(x, 0) + 2 artanh(e / (2 + e)) with e = exp(-|x|); the series ends at 1.5e-7."""
    e = tl.exp(-tl.abs(x))
    s = e / (2 + e)
    q = s * s
    series = 1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11)))))
    return tl.maximum(x, 0.0) + 2 * s * series


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _load(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _scan_direction(
    y, z, u, delta, decay, B, C, D, z_frame, b_frame, frames, first, sign, channels, states,
    BLOCK: tl.constexpr, STATES: tl.constexpr, ADD: tl.constexpr, GATED: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One direction of one sequence; ``ADD`` to the output that is there, then gate it."""
    channel = tl.program_id(0) % tl.cdiv(channels, BLOCK) * BLOCK + tl.arange(0, BLOCK)
    state = tl.arange(0, STATES)
    some, few = channel < channels, state < states
    # s c: threads side by side along the channels, every thread with all states of its own.
    exponents = _load(decay + state[:, None] * channels + channel[None, :], few[:, None] & some[None, :])
    skip = _load(D + channel, some)
    h = tl.zeros((STATES, BLOCK), tl.float32)
    for step in tl.range(0, frames, num_stages=STAGES):
        t = first + sign * step
        at = t * channels + channel
        x = _load(u + at, some)
        dt = _softplus(_load(delta + at, some))
        b = _load(B + t * b_frame + state, few)
        c = _load(C + t * b_frame + state, few)
        h = h * tl.exp2(exponents * dt[None, :]) + b[:, None] * (dt * x)[None, :]
        out = tl.sum(h * c[:, None], 0) + skip * x
        if ADD:
            out += _load(y + at, some)
        if GATED:
            gate = _load(z + t * z_frame + channel, some)
            out *= gate * _sigmoid(gate)
        tl.store(y + at, out.to(y.dtype.element_ty), mask=some)


@triton.jit
def forward_kernel(
    y, z, u0, delta0, decay0, B0, C0, D0, u1, delta1, decay1, B1, C1, D1,
    z_row, z_frame, b_row, b_frame, frames, channels, states,
    BLOCK: tl.constexpr, STATES: tl.constexpr, BOTH: tl.constexpr, GATED: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Both directions of one sequence's block of channels."""
    row = (tl.program_id(0) // tl.cdiv(channels, BLOCK)).to(tl.int64)  # blocks of one row share B and C in the cache
    own = row * frames * channels
    y += own
    z += row * z_row
    b = row * b_row
    _scan_direction(
        y, z, u0 + own, delta0 + own, decay0, B0 + b, C0 + b, D0, z_frame, b_frame, frames, 0, 1, channels, states,
        BLOCK, STATES, False, GATED and not BOTH, STAGES,
    )  # fmt: skip
    if BOTH:
        tl.debug_barrier()  # what one thread wrote, another may read
        _scan_direction(
            y, z, u1 + own, delta1 + own, decay1, B1 + b, C1 + b, D1, z_frame, b_frame, frames, frames - 1, -1,
            channels, states, BLOCK, STATES, True, GATED, STAGES,
        )  # fmt: skip


@triton.jit
def _advance(h, u, delta, B, exponents, step, frames, first, sign, channels, states, b_frame, channel, state):
    """The states c s after a step; the same where there is no such step."""
    some = channel < tl.where(step < frames, channels, 0)
    few = state < tl.where(step < frames, states, 0)
    t = first + sign * step
    at = t * channels + channel
    dt = tl.where(some, _softplus(_load(delta + at, some)), 0.0)
    x = dt * _load(u + at, some)
    b = _load(B + t * b_frame + state, few)
    return h * tl.exp2(exponents * dt[:, None]) + x[:, None] * b[None, :]


@triton.jit
def _step_back(
    h, g, dA, dD, dy, u, delta, B, C, exponents, skip, du, ddelta, dB, dC,
    step, frames, first, sign, channels, states, b_frame, channel, state,
):  # fmt: skip
    """A step's gradients, from the states before it and the gradient of those after it.

    Returns:
        The gradient of the states before it, and the sums for A and D with this step's share.
    """
    some = channel < tl.where(step < frames, channels, 0)
    few = state < tl.where(step < frames, states, 0)
    t = first + sign * step
    at = t * channels + channel
    raw = _load(delta + at, some)
    dt = tl.where(some, _softplus(raw), 0.0)
    u_t = _load(u + at, some)
    dy_t = _load(dy + at, some)
    b = _load(B + t * b_frame + state, few)
    c = _load(C + t * b_frame + state, few)
    x = dt * u_t
    factor = tl.exp2(exponents * dt[:, None])
    kept = h * factor
    g += dy_t[:, None] * c[None, :]
    by_x = tl.sum(g * b[None, :], 1)
    by_exponent = g * kept
    by_dt = u_t * by_x + 0.6931471805599453 * tl.sum(by_exponent * exponents, 1)
    tl.store(du + at, (dt * by_x + skip * dy_t).to(du.dtype.element_ty), mask=some)
    tl.store(ddelta + at, (by_dt * _sigmoid(raw)).to(ddelta.dtype.element_ty), mask=some)
    tl.atomic_add(dB + t * states + state, tl.sum(g * x[:, None], 0), mask=few)
    tl.atomic_add(dC + t * states + state, tl.sum((kept + x[:, None] * b[None, :]) * dy_t[:, None], 0), mask=few)
    return g * factor, dA + by_exponent * dt[:, None], dD + dy_t * u_t


@triton.jit
def backward_kernel(
    dy, u0, delta0, decay0, B0, C0, D0, u1, delta1, decay1, B1, C1, D1,
    du0, ddelta0, dB0, dC0, du1, ddelta1, dB1, dC1, dA, dD, saved, b_row, b_frame, rows, frames, channels, states,
    BLOCK: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """The gradients of one direction, for a block of channels of every so many-th sequence.

    The states are made again: once through, of which every fourth is written down, then four at a time in registers.
    """
    block, group, direction = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    blocks, groups = tl.num_programs(0), tl.num_programs(1)
    if direction == 0:
        u, delta, decay, B, C, D = u0, delta0, decay0, B0, C0, D0
        du, ddelta, dB, dC = du0, ddelta0, dB0, dC0
        first, sign = 0, 1
    else:
        u, delta, decay, B, C, D = u1, delta1, decay1, B1, C1, D1
        du, ddelta, dB, dC = du1, ddelta1, dB1, dC1
        first, sign = frames - 1, -1
    channel = block * BLOCK + tl.arange(0, BLOCK)
    state = tl.arange(0, STATES)
    some, few = channel < channels, state < states
    both = some[:, None] & few[None, :]
    # c s: threads hold few states of more channels, because most sums here run over the channels.
    tile = channel[:, None] * states + state[None, :]
    exponents = _load(decay + tile, both)
    skip = _load(D + channel, some)
    sum_A = tl.zeros((BLOCK, STATES), tl.float32)
    sum_D = tl.zeros((BLOCK,), tl.float32)
    chunks = tl.cdiv(frames, 4)
    program = ((direction * groups + group) * blocks + block).to(tl.int64)
    inside = tl.arange(0, BLOCK)[:, None] * STATES + state[None, :]
    saved += program * chunks * BLOCK * STATES + inside
    for turn in range(tl.cdiv(rows - group, groups)):
        row = (group + turn * groups).to(tl.int64)
        own, narrow = row * frames * channels, row * frames * states
        u_r, delta_r, dy_r, du_r, ddelta_r = u + own, delta + own, dy + own, du + own, ddelta + own
        B_r, C_r, dB_r, dC_r = B + row * b_row, C + row * b_row, dB + narrow, dC + narrow
        tl.debug_barrier()  # the row before has read what is written now
        h = tl.zeros((BLOCK, STATES), tl.float32)
        for chunk in range(chunks):
            tl.store(saved + chunk * BLOCK * STATES, h)
            for index in tl.static_range(4):
                h = _advance(
                    h, u_r, delta_r, B_r, exponents, chunk * 4 + index, frames, first, sign, channels, states,
                    b_frame, channel, state,
                )  # fmt: skip
        tl.debug_barrier()
        g = tl.zeros((BLOCK, STATES), tl.float32)
        for index in range(chunks):
            start = (chunks - 1 - index) * 4
            h0 = tl.load(saved + (chunks - 1 - index) * BLOCK * STATES)
            h1 = _advance(
                h0, u_r, delta_r, B_r, exponents, start, frames, first, sign, channels, states,
                b_frame, channel, state,
            )  # fmt: skip
            h2 = _advance(
                h1, u_r, delta_r, B_r, exponents, start + 1, frames, first, sign, channels, states,
                b_frame, channel, state,
            )  # fmt: skip
            h3 = _advance(
                h2, u_r, delta_r, B_r, exponents, start + 2, frames, first, sign, channels, states,
                b_frame, channel, state,
            )  # fmt: skip
            g, sum_A, sum_D = _step_back(
                h3, g, sum_A, sum_D, dy_r, u_r, delta_r, B_r, C_r, exponents, skip, du_r, ddelta_r, dB_r, dC_r,
                start + 3, frames, first, sign, channels, states, b_frame, channel, state,
            )  # fmt: skip
            g, sum_A, sum_D = _step_back(
                h2, g, sum_A, sum_D, dy_r, u_r, delta_r, B_r, C_r, exponents, skip, du_r, ddelta_r, dB_r, dC_r,
                start + 2, frames, first, sign, channels, states, b_frame, channel, state,
            )  # fmt: skip
            g, sum_A, sum_D = _step_back(
                h1, g, sum_A, sum_D, dy_r, u_r, delta_r, B_r, C_r, exponents, skip, du_r, ddelta_r, dB_r, dC_r,
                start + 1, frames, first, sign, channels, states, b_frame, channel, state,
            )  # fmt: skip
            g, sum_A, sum_D = _step_back(
                h0, g, sum_A, sum_D, dy_r, u_r, delta_r, B_r, C_r, exponents, skip, du_r, ddelta_r, dB_r, dC_r,
                start, frames, first, sign, channels, states, b_frame, channel, state,
            )  # fmt: skip
    share = direction * groups + group
    tl.store(dA + share * channels * states + tile, sum_A, mask=both)
    tl.store(dD + share * channels + channel, sum_D, mask=some)
