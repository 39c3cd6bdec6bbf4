"""Group Norm kernels for channels-last maps (N, HW, C), channels contiguous.

A group of D channels has CB pieces of BLOCK_D channels, in the on-chip kernels one that
holds it whole. A program owns a column block of BLOCK_C / BLOCK_D pieces, which may be
of several groups. Where BLOCK_D divides D the pieces are `DENSE`: a block's channels
are adjacent; else the last piece of a group is padded. C arrives as C_UNITS * VEC, VEC
a power of two, so that the compiler knows the alignment of every position.
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
    reciprocal_std,
    store_map,
    sum_rows,
    welford_update,
)


@triton.jit
def column_block(
    i_block,
    C,
    D,
    CB,
    DENSE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Channels and mask of one column block; group, number in it and mask of pieces."""
    PIECES: tl.constexpr = BLOCK_C // BLOCK_D
    G = C // D
    o_j = tl.arange(0, BLOCK_C)  # [BLOCK_C]
    if DENSE:
        o_c = i_block * BLOCK_C + o_j
        m_c = o_c < C
    else:
        o_p = i_block * PIECES + o_j // BLOCK_D
        o_d = o_p % CB * BLOCK_D + o_j % BLOCK_D
        o_c = o_p // CB * D + o_d
        m_c = (o_p // CB < G) & (o_d < D)
    o_p = i_block * PIECES + tl.arange(0, PIECES)  # [PIECES]
    o_group = o_p // CB
    return o_c, m_c, o_group, o_p % CB, o_group < G


@triton.jit
def sum_in_pieces(values, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr):
    """Sums per piece of values [BLOCK_C]."""
    grouped = tl.reshape(values, (BLOCK_C // BLOCK_D, BLOCK_D))
    return tl.sum(grouped, axis=1)  # [PIECES]


@triton.jit
def repeat_in_pieces(values, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr):
    """Each piece's value of values [PIECES] at its BLOCK_D channels."""
    spread = tl.broadcast_to(values[:, None], (BLOCK_C // BLOCK_D, BLOCK_D))
    return tl.reshape(spread, (BLOCK_C,))


@triton.jit
def merge_piece_moments(
    count, mean, M2, total, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Chan's merge of [BLOCK_HW, BLOCK_C] moments into moments per piece."""
    approx = sum_in_pieces(tl.sum(count * mean, axis=0), BLOCK_D, BLOCK_C) / total
    centre = repeat_in_pieces(approx, BLOCK_D, BLOCK_C)  # [BLOCK_C]
    delta = tl.where(count > 0.0, mean - centre[None, :], 0.0)
    correction = sum_in_pieces(tl.sum(count * delta, axis=0), BLOCK_D, BLOCK_C) / total
    M2 = sum_in_pieces(tl.sum(M2 + count * delta * delta, axis=0), BLOCK_D, BLOCK_C)
    M2 = M2 - total * correction * correction
    return approx + correction, tl.where(M2 < 0.0, 0.0, M2)  # [PIECES]


@triton.jit(do_not_specialize=['HW', 'C_UNITS', 'D'])
def gn_fwd_nhwc_kernel(
    p_x,
    p_weight,
    p_bias,
    p_residual,
    p_y,
    p_mean,
    p_rstd,
    eps,
    HW,
    C_UNITS,
    D,
    VEC: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program normalises one column block of one sample, read once."""
    GROUPS: tl.constexpr = BLOCK_C // BLOCK_D
    C = C_UNITS * VEC
    G = C // D
    BLOCKS = (G + GROUPS - 1) // GROUPS
    pid = tl.program_id(0)
    i_n = pid // BLOCKS
    o_c, m_c, o_group, _, m_group = column_block(
        pid % BLOCKS, C, D, 1, DENSE, BLOCK_D, BLOCK_C
    )
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    mask = (o_hw < HW)[:, None] & m_c[None, :]  # [BLOCK_HW, BLOCK_C]
    o_x = i_n.to(tl.int64) * HW * C
    o_tile = o_hw[:, None] * C + o_c[None, :]
    x = tl.load(p_x + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)

    L = D * HW.to(tl.float32)
    mean, M2 = merge_piece_moments(mask.to(tl.float32), x, 0.0, L, BLOCK_D, BLOCK_C)
    rstd = reciprocal_std(M2, L, eps)
    tl.store(p_mean + i_n * G + o_group, mean, mask=m_group)
    tl.store(p_rstd + i_n * G + o_group, rstd, mask=m_group)

    weight, bias = load_channels(p_weight, p_bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS)
    centre = repeat_in_pieces(mean, BLOCK_D, BLOCK_C)  # [BLOCK_C]
    scale = repeat_in_pieces(rstd, BLOCK_D, BLOCK_C) * weight
    z = affine(x, centre[None, :], scale[None, :], bias[None, :])
    if HAS_RESIDUAL:
        z += load_last(p_residual + o_x + o_tile, mask)
    tl.store(p_y + o_x + o_tile, activate(z, ACTIVATION), mask=mask)


@triton.jit(do_not_specialize=['HW', 'TILES', 'SPLITS', 'C_UNITS', 'D'])
def gn_stats_partial_nhwc_kernel(
    p_x,
    p_part,
    HW,
    TILES,
    SPLITS,
    C_UNITS,
    D,
    VEC: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HW: tl.constexpr,
):
    """One program: mean and M2 per group of a column block over TILES tiles of HW."""
    PIECES: tl.constexpr = BLOCK_C // BLOCK_D
    C = C_UNITS * VEC
    G = C // D
    CB = (D + BLOCK_D - 1) // BLOCK_D
    BLOCKS = (G * CB + PIECES - 1) // PIECES
    pid = tl.program_id(0)
    i_block = pid % BLOCKS
    i_split = pid // BLOCKS % SPLITS
    i_n = pid // BLOCKS // SPLITS
    o_c, m_c, o_group, o_piece, m_group = column_block(
        i_block, C, D, CB, DENSE, BLOCK_D, BLOCK_C
    )
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    start = i_split * (TILES * BLOCK_HW)
    p_x += (i_n.to(tl.int64) * HW + start) * C
    o_tile = o_hw[:, None] * C + o_c[None, :]  # [BLOCK_HW, BLOCK_C]

    mean = tl.zeros((BLOCK_HW, BLOCK_C), tl.float32)
    M2 = tl.zeros((BLOCK_HW, BLOCK_C), tl.float32)
    for i in range(0, TILES):
        mask = (start + i * BLOCK_HW + o_hw < HW)[:, None] & m_c[None, :]
        x = tl.load(p_x + o_tile, mask=mask, other=0.0).to(tl.float32)
        mean, M2 = welford_update(x, mask, mean, M2, i)
        p_x += BLOCK_HW * C
    count = lane_counts(HW, start, TILES, BLOCK_HW)
    count = count[:, None] * m_c.to(tl.float32)[None, :]  # [BLOCK_HW, BLOCK_C]
    positions = tl.minimum(HW - start, TILES * BLOCK_HW)
    channels = tl.minimum(D - o_piece * BLOCK_D, BLOCK_D)  # [PIECES]
    total = positions.to(tl.float32) * channels.to(tl.float32)
    mean, M2 = merge_piece_moments(count, mean, M2, total, BLOCK_D, BLOCK_C)
    o_part = (i_n * G + o_group).to(tl.int64) * (CB * SPLITS)
    o_part += o_piece * SPLITS + i_split
    tl.store(p_part + o_part * 2, mean, mask=m_group)
    tl.store(p_part + o_part * 2 + 1, M2, mask=m_group)


@triton.jit(do_not_specialize=['HW', 'TILES', 'SPLITS', 'C_UNITS', 'D', 'BEYOND_L2'])
def gn_apply_nhwc_kernel(
    p_x,
    p_weight,
    p_bias,
    p_residual,
    p_y,
    p_mean,
    p_rstd,
    p_part,
    eps,
    HW,
    TILES,
    SPLITS,
    C_UNITS,
    D,
    BEYOND_L2,
    VEC: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    BLOCK_P: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program merges its groups' partials, then normalises the same slice."""
    PIECES: tl.constexpr = BLOCK_C // BLOCK_D
    C = C_UNITS * VEC
    G = C // D
    CB = (D + BLOCK_D - 1) // BLOCK_D
    BLOCKS = (G * CB + PIECES - 1) // PIECES
    pid = tl.program_id(0)
    i_block = pid % BLOCKS
    i_split = pid // BLOCKS % SPLITS
    i_n = pid // BLOCKS // SPLITS
    o_c, m_c, o_group, o_piece, m_group = column_block(
        i_block, C, D, CB, DENSE, BLOCK_D, BLOCK_C
    )
    o_group += i_n * G
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
        PIECES,
    )
    rstd = reciprocal_std(M2, D * HW.to(tl.float32), eps)
    if i_split == 0:
        tl.store(p_mean + o_group, mean, mask=m_group & (o_piece == 0))
        tl.store(p_rstd + o_group, rstd, mask=m_group & (o_piece == 0))

    weight, bias = load_channels(p_weight, p_bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS)
    centre = repeat_in_pieces(mean, BLOCK_D, BLOCK_C)  # [BLOCK_C]
    scale = repeat_in_pieces(rstd, BLOCK_D, BLOCK_C) * weight
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    start = i_split * (TILES * BLOCK_HW)
    o_x = (i_n.to(tl.int64) * HW + start) * C
    o_tile = o_hw[:, None] * C + o_c[None, :]  # [BLOCK_HW, BLOCK_C]
    for i in range(0, TILES):
        mask = (start + i * BLOCK_HW + o_hw < HW)[:, None] & m_c[None, :]
        x = load_last(p_x + o_x + o_tile, mask)
        z = affine(x, centre[None, :], scale[None, :], bias[None, :])
        if HAS_RESIDUAL:
            z += load_last(p_residual + o_x + o_tile, mask)
        y = activate(z, ACTIVATION)
        store_map(p_y + o_x + o_tile, y, mask, BEYOND_L2)
        o_x += BLOCK_HW * C


@triton.jit(do_not_specialize=['HW', 'ROWS', 'C_UNITS', 'D'])
def gn_bwd_nhwc_kernel(
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
    HW,
    ROWS,
    C_UNITS,
    D,
    VEC: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_KEPT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STORE_SUMS: tl.constexpr,
):
    """One program: dx and channel sums of one column block of one sample."""
    GROUPS: tl.constexpr = BLOCK_C // BLOCK_D
    C = C_UNITS * VEC
    G = C // D
    BLOCKS = (G + GROUPS - 1) // GROUPS
    pid = tl.program_id(0)
    i_n = pid // BLOCKS
    o_c, m_c, o_group, _, m_group = column_block(
        pid % BLOCKS, C, D, 1, DENSE, BLOCK_D, BLOCK_C
    )
    o_group += i_n * G
    mean = tl.load(p_mean + o_group, mask=m_group, other=0.0)
    rstd = tl.load(p_rstd + o_group, mask=m_group, other=0.0)
    centre = repeat_in_pieces(mean, BLOCK_D, BLOCK_C)[None, :]  # [1, BLOCK_C]
    inv = repeat_in_pieces(rstd, BLOCK_D, BLOCK_C)[None, :]
    weight, bias = load_channels(p_weight, p_bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS)
    scale = inv * weight[None, :]

    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    mask = (o_hw < HW)[:, None] & m_c[None, :]  # [BLOCK_HW, BLOCK_C]
    o_x = i_n.to(tl.int64) * HW * C
    o_tile = o_hw[:, None] * C + o_c[None, :]
    x = tl.load(p_x + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(p_dy + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
    dz = activation_backward(
        dy,
        x,
        centre,
        scale,
        bias[None, :],
        p_kept + o_x + o_tile,
        p_dresidual + o_x + o_tile,
        mask,
        HAS_KEPT,
        ACTIVATION,
    )
    x_hat = (x - centre) * inv
    sum1 = tl.sum(dz, axis=0)  # [BLOCK_C]
    sum2 = tl.sum(dz * x_hat, axis=0)
    if STORE_SUMS:
        o_sums = i_n.to(tl.int64) * C + o_c
        tl.store(p_sums + o_sums, sum1, mask=m_c)
        tl.store(p_sums + ROWS.to(tl.int64) * C + o_sums, sum2, mask=m_c)

    L = D * HW.to(tl.float32)
    shift1 = sum_in_pieces(weight * sum1, BLOCK_D, BLOCK_C) * rstd / L  # [GROUPS]
    shift2 = sum_in_pieces(weight * sum2, BLOCK_D, BLOCK_C) * rstd / L
    shift1 = repeat_in_pieces(shift1, BLOCK_D, BLOCK_C)[None, :]  # [1, BLOCK_C]
    shift2 = repeat_in_pieces(shift2, BLOCK_D, BLOCK_C)[None, :]
    tl.store(p_dx + o_x + o_tile, dz * scale - shift1 - x_hat * shift2, mask=mask)


@triton.jit(do_not_specialize=['HW', 'TILES', 'SPLITS', 'ROWS', 'C_UNITS', 'D'])
def gn_bwd_partial_nhwc_kernel(
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
    HW,
    TILES,
    SPLITS,
    ROWS,
    C_UNITS,
    D,
    VEC: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_KEPT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STORE_SUMS: tl.constexpr,
):
    """One program: channel sums and weighted group sums of a column block."""
    PIECES: tl.constexpr = BLOCK_C // BLOCK_D
    C = C_UNITS * VEC
    G = C // D
    CB = (D + BLOCK_D - 1) // BLOCK_D
    BLOCKS = (G * CB + PIECES - 1) // PIECES
    pid = tl.program_id(0)
    i_block = pid % BLOCKS
    i_split = pid // BLOCKS % SPLITS
    i_n = pid // BLOCKS // SPLITS
    o_c, m_c, o_group, o_piece, m_group = column_block(
        i_block, C, D, CB, DENSE, BLOCK_D, BLOCK_C
    )
    o_group += i_n * G
    mean = tl.load(p_mean + o_group, mask=m_group, other=0.0)
    rstd = tl.load(p_rstd + o_group, mask=m_group, other=0.0)
    centre = repeat_in_pieces(mean, BLOCK_D, BLOCK_C)[None, :]  # [1, BLOCK_C]
    inv = repeat_in_pieces(rstd, BLOCK_D, BLOCK_C)[None, :]
    weight, bias = load_channels(p_weight, p_bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS)
    scale = inv * weight[None, :]

    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    start = i_split * (TILES * BLOCK_HW)
    o_x = (i_n.to(tl.int64) * HW + start) * C
    o_tile = o_hw[:, None] * C + o_c[None, :]  # [BLOCK_HW, BLOCK_C]
    acc1 = tl.zeros((BLOCK_HW, BLOCK_C), tl.float32)
    acc2 = tl.zeros((BLOCK_HW, BLOCK_C), tl.float32)
    for i in range(0, TILES):
        mask = (start + i * BLOCK_HW + o_hw < HW)[:, None] & m_c[None, :]
        x = tl.load(p_x + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
        if HAS_KEPT:  # The next launch reads dresidual instead.
            dy = load_last(p_dy + o_x + o_tile, mask)
        else:
            dy = tl.load(p_dy + o_x + o_tile, mask=mask, other=0.0).to(tl.float32)
        dz = activation_backward(
            dy,
            x,
            centre,
            scale,
            bias[None, :],
            p_kept + o_x + o_tile,
            p_dresidual + o_x + o_tile,
            mask,
            HAS_KEPT,
            ACTIVATION,
        )
        acc1 += dz
        acc2 += dz * ((x - centre) * inv)
        o_x += BLOCK_HW * C
    sum1 = tl.sum(acc1, axis=0)  # [BLOCK_C]
    sum2 = tl.sum(acc2, axis=0)
    if STORE_SUMS:
        o_sums = (i_n * SPLITS + i_split).to(tl.int64) * C + o_c
        tl.store(p_sums + o_sums, sum1, mask=m_c)
        tl.store(p_sums + ROWS.to(tl.int64) * C + o_sums, sum2, mask=m_c)
    o_part = o_group.to(tl.int64) * (CB * SPLITS) + o_piece * SPLITS + i_split
    piece1 = sum_in_pieces(weight * sum1, BLOCK_D, BLOCK_C)  # [PIECES]
    piece2 = sum_in_pieces(weight * sum2, BLOCK_D, BLOCK_C)
    tl.store(p_part + o_part * 2, piece1, mask=m_group)
    tl.store(p_part + o_part * 2 + 1, piece2, mask=m_group)


@triton.jit(
    do_not_specialize=['HW', 'TILES', 'SPLITS', 'ROWS', 'C_UNITS', 'D', 'BEYOND_L2']
)
def gn_bwd_dx_nhwc_kernel(
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
    HW,
    TILES,
    SPLITS,
    ROWS,
    C_UNITS,
    D,
    BEYOND_L2,
    VEC: tl.constexpr,
    DENSE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
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
    """dx: a program merges its groups' sums, then writes its slice; dweight, dbias."""
    PIECES: tl.constexpr = BLOCK_C // BLOCK_D
    C = C_UNITS * VEC
    G = C // D
    CB = (D + BLOCK_D - 1) // BLOCK_D
    BLOCKS = (G * CB + PIECES - 1) // PIECES
    pid = tl.program_id(0)
    if NEED_DWEIGHT or NEED_DBIAS:
        # The first programs add the rows of channel sums: a launch of their own would
        # take longer than they do.
        columns = (C + BLOCK_S - 1) // BLOCK_S
        if pid < columns:
            sum_rows(
                p_sums,
                p_dweight,
                p_dbias,
                pid,
                ROWS,
                C,
                BLOCK_R,
                BLOCK_S,
                NEED_DWEIGHT,
                NEED_DBIAS,
            )
            return
        pid -= columns
    i_block = pid % BLOCKS
    i_split = pid // BLOCKS % SPLITS
    i_n = pid // BLOCKS // SPLITS
    o_c, m_c, o_group, _, m_group = column_block(
        i_block, C, D, CB, DENSE, BLOCK_D, BLOCK_C
    )
    o_group += i_n * G
    mean = tl.load(p_mean + o_group, mask=m_group, other=0.0)
    rstd = tl.load(p_rstd + o_group, mask=m_group, other=0.0)
    sum1, sum2 = combine_sums(p_part, o_group, m_group, CB * SPLITS, BLOCK_P, PIECES)
    L = D * HW.to(tl.float32)
    shift1 = repeat_in_pieces(sum1 * rstd / L, BLOCK_D, BLOCK_C)[None, :]
    shift2 = repeat_in_pieces(sum2 * rstd / L, BLOCK_D, BLOCK_C)[None, :]
    centre = repeat_in_pieces(mean, BLOCK_D, BLOCK_C)[None, :]
    inv = repeat_in_pieces(rstd, BLOCK_D, BLOCK_C)[None, :]
    weight, bias = load_channels(p_weight, p_bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS)
    scale = inv * weight[None, :]

    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    start = i_split * (TILES * BLOCK_HW)
    o_x = (i_n.to(tl.int64) * HW + start) * C
    o_tile = o_hw[:, None] * C + o_c[None, :]  # [BLOCK_HW, BLOCK_C]
    for i in range(0, TILES):
        mask = (start + i * BLOCK_HW + o_hw < HW)[:, None] & m_c[None, :]
        x = load_last(p_x + o_x + o_tile, mask)
        dy = load_last(p_dy + o_x + o_tile, mask)
        dz = activation_backward(
            dy,
            x,
            centre,
            scale,
            bias[None, :],
            p_x,
            p_x,
            mask,
            False,
            ACTIVATION,
        )
        dx = dz * scale - shift1 - (x - centre) * inv * shift2
        store_map(p_dx + o_x + o_tile, dx, mask, BEYOND_L2)
        o_x += BLOCK_HW * C
