"""Group Norm kernels for contiguous maps (N, C, HW), where a group is contiguous.

HW arrives as HW_UNITS * VEC, VEC a power of two, so that the compiler knows the
alignment of every row and can use 16-byte accesses. Rows of the partial buffers are
described in docs/math.md.
"""

import triton
import triton.language as tl

from gn_det.ops.triton_kernels import (
    activate,
    activation_backward,
    affine,
    combine_moments,
    combine_sums,
    lane_counts,
    load_channels,
    load_last,
    merge_moments,
    reciprocal_std,
    store_map,
    sum_rows,
    welford_update,
)


@triton.jit(do_not_specialize=['L_UNITS', 'D', 'G'])
def gn_fwd_kernel(
    p_x,
    p_weight,
    p_bias,
    p_residual,
    p_y,
    p_mean,
    p_rstd,
    eps,
    L_UNITS,
    D,
    G,
    VEC: tl.constexpr,
    BLOCK_L: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program normalises one (n, g): L = D * HW contiguous elements, read once."""
    i_group = tl.program_id(0)
    L = L_UNITS * VEC
    HW = L // D
    o_l = tl.arange(0, BLOCK_L)  # [BLOCK_L]
    m_l = o_l < L
    o_x = i_group.to(tl.int64) * L
    x = tl.load(p_x + o_x + o_l, mask=m_l, other=0.0).to(tl.float32)

    mean, M2 = merge_moments(m_l.to(tl.float32), x, 0.0)
    rstd = reciprocal_std(M2, L.to(tl.float32), eps)
    tl.store(p_mean + i_group, mean)
    tl.store(p_rstd + i_group, rstd)

    # o_l // HW without an integer division; exact for L < 2**20 (docs/math.md).
    o_d = ((o_l.to(tl.float32) + 0.5) * (1.0 / HW.to(tl.float32))).to(tl.int32)
    o_c = (i_group % G) * D + o_d
    weight, bias = load_channels(p_weight, p_bias, o_c, m_l, HAS_WEIGHT, HAS_BIAS)
    z = affine(x, mean, rstd * weight, bias)
    if HAS_RESIDUAL:
        z += load_last(p_residual + o_x + o_l, m_l)
    tl.store(p_y + o_x + o_l, activate(z, ACTIVATION), mask=m_l)


@triton.jit(do_not_specialize=['HW_UNITS', 'TILES', 'SPLITS', 'D'])
def gn_stats_partial_kernel(
    p_x,
    p_part,
    HW_UNITS,
    TILES,
    SPLITS,
    D,
    VEC: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_HW: tl.constexpr,
):
    """One program: mean and M2 of BLOCK_D rows of a group over TILES tiles of HW."""
    CB = (D + BLOCK_D - 1) // BLOCK_D
    pid = tl.program_id(0)
    HW = HW_UNITS * VEC
    i_rows = pid // SPLITS
    d0 = (i_rows % CB) * BLOCK_D
    start = (pid % SPLITS) * (TILES * BLOCK_HW)
    o_d = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    m_d = d0 + o_d < D
    p_x += ((i_rows // CB).to(tl.int64) * D + d0) * HW + start
    o_tile = o_d[:, None] * HW + o_hw[None, :]  # [BLOCK_D, BLOCK_HW]

    mean = tl.zeros((BLOCK_D, BLOCK_HW), tl.float32)
    M2 = tl.zeros((BLOCK_D, BLOCK_HW), tl.float32)
    for i in range(0, TILES):
        mask = m_d[:, None] & (start + i * BLOCK_HW + o_hw < HW)[None, :]
        x = tl.load(p_x + o_tile, mask=mask, other=0.0).to(tl.float32)
        mean, M2 = welford_update(x, mask, mean, M2, i)
        p_x += BLOCK_HW
    count = lane_counts(HW, start, TILES, BLOCK_HW)
    count = count[None, :] * m_d.to(tl.float32)[:, None]  # [BLOCK_D, BLOCK_HW]
    mean, M2 = merge_moments(count, mean, M2)
    tl.store(p_part + pid.to(tl.int64) * 2, mean)
    tl.store(p_part + pid.to(tl.int64) * 2 + 1, M2)


@triton.jit(do_not_specialize=['HW_UNITS', 'TILES', 'SPLITS', 'D', 'G', 'BEYOND_L2'])
def gn_apply_kernel(
    p_x,
    p_weight,
    p_bias,
    p_residual,
    p_y,
    p_mean,
    p_rstd,
    p_part,
    eps,
    HW_UNITS,
    TILES,
    SPLITS,
    D,
    G,
    BEYOND_L2,
    VEC: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    BLOCK_P: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program merges its group's partials, then normalises the same slice."""
    CB = (D + BLOCK_D - 1) // BLOCK_D
    pid = tl.program_id(0)
    HW = HW_UNITS * VEC
    i_rows = pid // SPLITS
    i_group = i_rows // CB
    d0 = (i_rows % CB) * BLOCK_D
    start = (pid % SPLITS) * (TILES * BLOCK_HW)

    o_group = i_group + tl.arange(0, 1)  # [1]
    m_group = o_group >= 0
    mean, M2 = combine_moments(
        p_part,
        o_group,
        m_group,
        HW,
        TILES,
        SPLITS,
        D,
        BLOCK_D,
        BLOCK_HW,
        BLOCK_P,
        1,
    )
    rstd = reciprocal_std(M2, D * HW.to(tl.float32), eps)
    if pid % (CB * SPLITS) == 0:
        tl.store(p_mean + o_group, mean)
        tl.store(p_rstd + o_group, rstd)

    o_d = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    m_d = d0 + o_d < D
    o_c = (i_group % G) * D + d0 + o_d
    weight, bias = load_channels(p_weight, p_bias, o_c, m_d, HAS_WEIGHT, HAS_BIAS)
    scale = (rstd * weight)[:, None]  # [BLOCK_D, 1]
    shift = bias[:, None]
    o_x = (i_group.to(tl.int64) * D + d0) * HW + start
    o_tile = o_d[:, None] * HW + o_hw[None, :]  # [BLOCK_D, BLOCK_HW]
    for i in range(0, TILES):
        mask = m_d[:, None] & (start + i * BLOCK_HW + o_hw < HW)[None, :]
        x = load_last(p_x + o_x + o_tile, mask)
        z = affine(x, mean[:, None], scale, shift)
        if HAS_RESIDUAL:
            z += load_last(p_residual + o_x + o_tile, mask)
        y = activate(z, ACTIVATION)
        store_map(p_y + o_x + o_tile, y, mask, BEYOND_L2)
        o_x += BLOCK_HW


@triton.jit(do_not_specialize=['HW_UNITS', 'ROWS', 'D', 'G'])
def gn_bwd_kernel(
    p_dy,
    p_x,
    p_kept,
    p_weight,
    p_bias,
    p_mean,
    p_rstd,
    p_dx,
    p_dresidual,
    p_sums,
    HW_UNITS,
    ROWS,
    D,
    G,
    VEC: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_KEPT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STORE_SUMS: tl.constexpr,
):
    """One program: dx and channel sums of one (n, g); x and dy are read once."""
    i_group = tl.program_id(0)
    HW = HW_UNITS * VEC
    o_d = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    m_d = o_d < D
    mask = m_d[:, None] & (o_hw < HW)[None, :]  # [BLOCK_D, BLOCK_HW]
    o_x = i_group.to(tl.int64) * D * HW
    o_tile = o_d[:, None] * HW + o_hw[None, :]
    o_c = (i_group % G) * D + o_d
    weight, bias = load_channels(p_weight, p_bias, o_c, m_d, HAS_WEIGHT, HAS_BIAS)
    mean = tl.load(p_mean + i_group)
    rstd = tl.load(p_rstd + i_group)

    x = tl.load(p_x + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(p_dy + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
    dz = activation_backward(
        dy,
        x,
        mean,
        (rstd * weight)[:, None],
        bias[:, None],
        p_kept + o_x + o_tile,
        p_dresidual + o_x + o_tile,
        mask,
        HAS_KEPT,
        ACTIVATION,
    )
    x_hat = (x - mean) * rstd
    sum1 = tl.sum(dz, axis=1)  # [BLOCK_D]
    sum2 = tl.sum(dz * x_hat, axis=1)
    if STORE_SUMS:
        o_sums = i_group.to(tl.int64) * D + o_d
        tl.store(p_sums + o_sums, sum1, mask=m_d)
        tl.store(p_sums + ROWS.to(tl.int64) * (G * D) + o_sums, sum2, mask=m_d)

    L = D * HW.to(tl.float32)
    shift1 = tl.sum(weight * sum1) * rstd / L
    shift2 = tl.sum(weight * sum2) * rstd / L
    dx = dz * (rstd * weight)[:, None] - shift1 - x_hat * shift2
    tl.store(p_dx + o_x + o_tile, dx, mask=mask)


@triton.jit(do_not_specialize=['HW_UNITS', 'TILES', 'SPLITS', 'ROWS', 'D', 'G'])
def gn_bwd_partial_kernel(
    p_dy,
    p_x,
    p_kept,
    p_weight,
    p_bias,
    p_mean,
    p_rstd,
    p_dresidual,
    p_sums,
    p_part,
    HW_UNITS,
    TILES,
    SPLITS,
    ROWS,
    D,
    G,
    VEC: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_KEPT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STORE_SUMS: tl.constexpr,
):
    """One program: channel sums and weighted group sums of BLOCK_D rows over TILES."""
    CB = (D + BLOCK_D - 1) // BLOCK_D
    pid = tl.program_id(0)
    HW = HW_UNITS * VEC
    i_rows = pid // SPLITS
    i_split = pid % SPLITS
    i_group = i_rows // CB
    d0 = (i_rows % CB) * BLOCK_D
    start = i_split * (TILES * BLOCK_HW)
    o_d = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    m_d = d0 + o_d < D
    o_c = (i_group % G) * D + d0 + o_d
    weight, bias = load_channels(p_weight, p_bias, o_c, m_d, HAS_WEIGHT, HAS_BIAS)
    mean = tl.load(p_mean + i_group)
    rstd = tl.load(p_rstd + i_group)

    o_x = (i_group.to(tl.int64) * D + d0) * HW + start
    o_tile = o_d[:, None] * HW + o_hw[None, :]  # [BLOCK_D, BLOCK_HW]
    acc1 = tl.zeros((BLOCK_D, BLOCK_HW), tl.float32)
    acc2 = tl.zeros((BLOCK_D, BLOCK_HW), tl.float32)
    for i in range(0, TILES):
        mask = m_d[:, None] & (start + i * BLOCK_HW + o_hw < HW)[None, :]
        x = tl.load(p_x + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
        if HAS_KEPT:  # The next launch reads dresidual instead.
            dy = load_last(p_dy + o_x + o_tile, mask)
        else:
            dy = tl.load(p_dy + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
        dz = activation_backward(
            dy,
            x,
            mean,
            (rstd * weight)[:, None],
            bias[:, None],
            p_kept + o_x + o_tile,
            p_dresidual + o_x + o_tile,
            mask,
            HAS_KEPT,
            ACTIVATION,
        )
        acc1 += dz
        acc2 += dz * ((x - mean) * rstd)
        o_x += BLOCK_HW
    sum1 = tl.sum(acc1, axis=1)  # [BLOCK_D]
    sum2 = tl.sum(acc2, axis=1)
    if STORE_SUMS:
        row = (i_group // G) * SPLITS + i_split
        o_sums = row.to(tl.int64) * (G * D) + o_c
        tl.store(p_sums + o_sums, sum1, mask=m_d)
        tl.store(p_sums + ROWS.to(tl.int64) * (G * D) + o_sums, sum2, mask=m_d)
    tl.store(p_part + pid.to(tl.int64) * 2, tl.sum(weight * sum1))
    tl.store(p_part + pid.to(tl.int64) * 2 + 1, tl.sum(weight * sum2))


@triton.jit(
    do_not_specialize=['HW_UNITS', 'TILES', 'SPLITS', 'ROWS', 'D', 'G', 'BEYOND_L2']
)
def gn_bwd_dx_kernel(
    p_dy,
    p_x,
    p_weight,
    p_bias,
    p_mean,
    p_rstd,
    p_dx,
    p_part,
    p_sums,
    p_dweight,
    p_dbias,
    HW_UNITS,
    TILES,
    SPLITS,
    ROWS,
    D,
    G,
    BEYOND_L2,
    VEC: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    BLOCK_P: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NEED_DWEIGHT: tl.constexpr,
    NEED_DBIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """dx: a program merges its group's sums, then writes its slice; dweight, dbias."""
    CB = (D + BLOCK_D - 1) // BLOCK_D
    pid = tl.program_id(0)
    if NEED_DWEIGHT or NEED_DBIAS:
        # The first programs add the rows of channel sums: a launch of their own would
        # take longer than they do.
        columns = (G * D + BLOCK_S - 1) // BLOCK_S
        if pid < columns:
            sum_rows(
                p_sums,
                p_dweight,
                p_dbias,
                pid,
                ROWS,
                G * D,
                BLOCK_R,
                BLOCK_S,
                NEED_DWEIGHT,
                NEED_DBIAS,
            )
            return
        pid -= columns
    HW = HW_UNITS * VEC
    i_rows = pid // SPLITS
    i_group = i_rows // CB
    d0 = (i_rows % CB) * BLOCK_D
    start = (pid % SPLITS) * (TILES * BLOCK_HW)
    mean = tl.load(p_mean + i_group)
    rstd = tl.load(p_rstd + i_group)
    o_group = i_group + tl.arange(0, 1)  # [1]
    sum1, sum2 = combine_sums(p_part, o_group, o_group >= 0, CB * SPLITS, BLOCK_P, 1)
    L = D * HW.to(tl.float32)
    shift1 = (sum1 * rstd / L)[:, None]  # [1, 1]
    shift2 = (sum2 * rstd / L)[:, None]

    o_d = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    m_d = d0 + o_d < D
    o_c = (i_group % G) * D + d0 + o_d
    weight, bias = load_channels(p_weight, p_bias, o_c, m_d, HAS_WEIGHT, HAS_BIAS)
    scale = (rstd * weight)[:, None]  # [BLOCK_D, 1]
    o_x = (i_group.to(tl.int64) * D + d0) * HW + start
    o_tile = o_d[:, None] * HW + o_hw[None, :]  # [BLOCK_D, BLOCK_HW]
    for i in range(0, TILES):
        mask = m_d[:, None] & (start + i * BLOCK_HW + o_hw < HW)[None, :]
        x = load_last(p_x + o_x + o_tile, mask)
        dy = load_last(p_dy + o_x + o_tile, mask)
        dz = activation_backward(
            dy,
            x,
            mean,
            scale,
            bias[:, None],
            p_x,
            p_x,
            mask,
            False,
            ACTIVATION,
        )
        dx = dz * scale - shift1 - (x - mean) * rstd * shift2
        store_map(p_dx + o_x + o_tile, dx, mask, BEYOND_L2)
        o_x += BLOCK_HW
