"""Device code of both layouts: moments, affine, activations, merges, dweight, dbias."""

import triton
import triton.language as tl


@triton.jit
def affine(x, mean, scale, shift):
    """z = (x - mean) * scale + shift, rounded the same way in forward and backward."""
    # Subtracting first keeps accuracy when |mean| >> std; the explicit fma keeps the
    # compiler from rounding one of the kernels differently (the ReLU mask needs it).
    return tl.fma(x - mean, scale, shift)


@triton.jit
def store_map(p, values, mask, BEYOND_L2):
    """Stores a tile of y or dx, of a map beyond the L2 to be evicted first."""
    # At run time: as a constant it would be one more kernel for nearly every layer.
    if BEYOND_L2 != 0:
        tl.store(p, values, mask=mask, eviction_policy='evict_first')
    else:
        tl.store(p, values, mask=mask)


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """y = act(z); a NaN passes the ReLU, as `NaN <= 0` is false."""
    if ACTIVATION == 'relu':
        z = tl.where(z <= 0.0, 0.0, z)
    elif ACTIVATION == 'silu':
        z = z * tl.sigmoid(z)
    return z


@triton.jit
def load_last(p, mask):
    """A tile in fp32 that no launch of this pass reads again: the L2 drops it first."""
    x = tl.load(p, mask=mask, other=0.0, eviction_policy='evict_first')
    return x.to(tl.float32)


@triton.jit
def activation_backward(
    dy,
    x,
    mean,
    scale,
    shift,
    p_kept,
    p_dresidual,
    mask,
    HAS_KEPT: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """dz = dy * act'(z) of a tile, written to dresidual where there is a residual.

    `p_kept` then points to y for a ReLU and to the residual for SiLU; without a
    residual z comes from x alone, and `p_kept` only says what dtype y was stored in.
    """
    dz = dy
    if ACTIVATION == 'relu':
        if HAS_KEPT:
            y = load_last(p_kept, mask)
        else:
            y = affine(x, mean, scale, shift)
            y = y.to(p_kept.dtype.element_ty).to(tl.float32)
        dz = tl.where(y <= 0.0, 0.0, dy)
    elif ACTIVATION == 'silu':
        z = affine(x, mean, scale, shift)
        if HAS_KEPT:
            z += load_last(p_kept, mask)
        sigmoid = tl.sigmoid(z)
        dz = dy * (sigmoid * (1.0 + z * (1.0 - sigmoid)))
    if HAS_KEPT:
        tl.store(p_dresidual, dz, mask=mask)
    return dz


@triton.jit
def reciprocal_std(M2, count, eps):
    """rstd = 1 / sqrt(M2 / count + eps)."""
    return 1.0 / tl.sqrt_rn(M2 / count + eps)


@triton.jit
def load_channels(p_weight, p_bias, o_c, m_c, HAS_WEIGHT, HAS_BIAS):
    """weight and bias of channels o_c in fp32; 1 and 0 where the layer has none."""
    if HAS_WEIGHT:
        weight = tl.load(p_weight + o_c, mask=m_c, other=0.0).to(tl.float32)
    else:
        weight = tl.full(o_c.shape, 1.0, tl.float32)
    if HAS_BIAS:
        bias = tl.load(p_bias + o_c, mask=m_c, other=0.0).to(tl.float32)
    else:
        bias = tl.full(o_c.shape, 0.0, tl.float32)
    return weight, bias


@triton.jit
def merge_moments(count, mean, M2):
    """Chan's merge of all entries of a block; entries with count 0 are ignored."""
    total = tl.sum(count)
    approx = tl.sum(count * mean) / total
    # The second pass removes the rounding error of the first sum: mean is then good
    # to half an ulp even at |mean| >> std.
    delta = tl.where(count > 0.0, mean - approx, 0.0)
    correction = tl.sum(count * delta) / total
    M2 = tl.sum(M2 + count * delta * delta) - total * correction * correction
    # `where`, not `maximum`: a NaN has to stay one.
    return approx + correction, tl.where(M2 < 0.0, 0.0, M2)


@triton.jit
def welford_update(x, mask, mean, M2, step):
    """Adds one tile to running per-lane moments; `step` tiles came before it."""
    delta = tl.where(mask, x - mean, 0.0)
    mean += delta * (1.0 / (step + 1))
    M2 += delta * (x - mean)
    return mean, M2


@triton.jit
def lane_counts(HW, start, TILES, BLOCK_HW: tl.constexpr):
    """How many of TILES tiles from `start` hold a position < HW, for each lane."""
    o_hw = tl.arange(0, BLOCK_HW)  # [BLOCK_HW]
    # In scalars but for one comparison a lane.
    positions = tl.minimum(tl.maximum(HW - start, 0), TILES * BLOCK_HW)
    whole = positions // BLOCK_HW
    rest = positions - whole * BLOCK_HW
    return tl.where(o_hw < rest, (whole + 1).to(tl.float32), whole.to(tl.float32))


@triton.jit
def load_moments(
    p_part,
    p0,
    o_group,
    m_group,
    HW,
    TILES,
    SPLITS,
    D,
    BLOCK_D: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Count, mean and M2 of BLOCK_P partials from p0 of groups o_group."""
    CB = (D + BLOCK_D - 1) // BLOCK_D
    o_p = p0 + tl.arange(0, BLOCK_P)  # [BLOCK_P]
    chunk = TILES * BLOCK_HW
    positions = tl.minimum(HW - (o_p % SPLITS) * chunk, chunk)
    channels = tl.minimum(D - (o_p // SPLITS) * BLOCK_D, BLOCK_D)
    count = positions.to(tl.float32) * channels.to(tl.float32)
    mask = m_group[:, None] & (o_p < CB * SPLITS)[None, :]  # [GROUPS, BLOCK_P]
    o_part = (o_group.to(tl.int64) * (CB * SPLITS))[:, None] + o_p[None, :]
    mean = tl.load(p_part + o_part * 2, mask=mask, other=0.0)
    M2 = tl.load(p_part + o_part * 2 + 1, mask=mask, other=0.0)
    return tl.where(mask, count[None, :], 0.0), mean, M2


@triton.jit
def combine_moments(
    p_part,
    o_group,
    m_group,
    HW,
    TILES,
    SPLITS,
    D,
    BLOCK_D: tl.constexpr,
    BLOCK_HW: tl.constexpr,
    BLOCK_P: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Mean and M2 of groups o_group from their partials (mean, M2), in fixed order."""
    P = (D + BLOCK_D - 1) // BLOCK_D * SPLITS
    total = D * HW.to(tl.float32)
    sum1 = tl.zeros((GROUPS, BLOCK_P), tl.float32)
    for p0 in range(0, P, BLOCK_P):
        count, mean, M2 = load_moments(
            p_part,
            p0,
            o_group,
            m_group,
            HW,
            TILES,
            SPLITS,
            D,
            BLOCK_D,
            BLOCK_HW,
            BLOCK_P,
        )
        sum1 += count * mean
    approx = tl.sum(sum1, axis=1) / total  # [GROUPS]

    sum1 = tl.zeros((GROUPS, BLOCK_P), tl.float32)
    sum2 = tl.zeros((GROUPS, BLOCK_P), tl.float32)
    for p0 in range(0, P, BLOCK_P):
        count, mean, M2 = load_moments(
            p_part,
            p0,
            o_group,
            m_group,
            HW,
            TILES,
            SPLITS,
            D,
            BLOCK_D,
            BLOCK_HW,
            BLOCK_P,
        )
        delta = tl.where(count > 0.0, mean - approx[:, None], 0.0)
        sum1 += count * delta
        sum2 += M2 + count * delta * delta
    correction = tl.sum(sum1, axis=1) / total
    M2 = tl.sum(sum2, axis=1) - total * correction * correction
    return approx + correction, tl.where(M2 < 0.0, 0.0, M2)


@triton.jit
def combine_sums(
    p_part, o_group, m_group, P, BLOCK_P: tl.constexpr, GROUPS: tl.constexpr
):
    """Both group sums of the backward pass from their P partials, in fixed order."""
    sum1 = tl.zeros((GROUPS, BLOCK_P), tl.float32)
    sum2 = tl.zeros((GROUPS, BLOCK_P), tl.float32)
    for p0 in range(0, P, BLOCK_P):
        o_p = p0 + tl.arange(0, BLOCK_P)  # [BLOCK_P]
        mask = m_group[:, None] & (o_p < P)[None, :]  # [GROUPS, BLOCK_P]
        o_part = (o_group.to(tl.int64) * P)[:, None] + o_p[None, :]
        sum1 += tl.load(p_part + o_part * 2, mask=mask, other=0.0)
        sum2 += tl.load(p_part + o_part * 2 + 1, mask=mask, other=0.0)
    return tl.sum(sum1, axis=1), tl.sum(sum2, axis=1)  # [GROUPS]


@triton.jit
def sum_rows(
    p_sums,
    p_dweight,
    p_dbias,
    i_block,
    ROWS,
    C,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
    NEED_DWEIGHT: tl.constexpr,
    NEED_DBIAS: tl.constexpr,
):
    """dbias and dweight of BLOCK_S channels: the rows of sums (2, ROWS, C), added."""
    o_c = i_block * BLOCK_S + tl.arange(0, BLOCK_S)  # [BLOCK_S]
    o_r = tl.arange(0, BLOCK_R)  # [BLOCK_R]
    p_s1 = p_sums + o_r[:, None] * C + o_c[None, :]
    p_s2 = p_s1 + ROWS.to(tl.int64) * C
    dbias = tl.zeros((BLOCK_R, BLOCK_S), tl.float32)
    dweight = tl.zeros((BLOCK_R, BLOCK_S), tl.float32)
    for row in range(0, ROWS, BLOCK_R):
        mask = (row + o_r < ROWS)[:, None] & (o_c < C)[None, :]
        if NEED_DBIAS:
            dbias += tl.load(p_s1, mask=mask, other=0.0)
        if NEED_DWEIGHT:
            dweight += tl.load(p_s2, mask=mask, other=0.0)
        p_s1 += BLOCK_R * C
        p_s2 += BLOCK_R * C
    if NEED_DBIAS:
        tl.store(p_dbias + o_c, tl.sum(dbias, axis=0), mask=o_c < C)
    if NEED_DWEIGHT:
        tl.store(p_dweight + o_c, tl.sum(dweight, axis=0), mask=o_c < C)


@triton.jit(do_not_specialize=['ROWS', 'C_UNITS'])
def gn_bwd_dwdb_kernel(
    p_sums,
    p_dweight,
    p_dbias,
    ROWS,
    C_UNITS,
    VEC: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
    NEED_DWEIGHT: tl.constexpr,
    NEED_DBIAS: tl.constexpr,
):
    """dbias and dweight, where no launch that could do it on the side follows."""
    sum_rows(
        p_sums,
        p_dweight,
        p_dbias,
        tl.program_id(0),
        ROWS,
        C_UNITS * VEC,
        BLOCK_R,
        BLOCK_S,
        NEED_DWEIGHT,
        NEED_DBIAS,
    )
