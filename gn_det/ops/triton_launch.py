"""Launch choices, allocation and launches of the Triton kernels."""

import functools
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from gn_det.ops import triton_kernels as shared
from gn_det.ops import triton_kernels_nchw as nchw
from gn_det.ops import triton_kernels_nhwc as nhwc
from gn_det.ops.layout import dense, to_format
from gn_det.ops.limits import LIMITS, Limits

# With TRITON_INTERPRET=1 the kernels run on the CPU, without a compiler or a GPU.
INTERPRETED = not isinstance(shared.gn_bwd_dwdb_kernel, triton.JITFunction)
INTERPRETER_SMS = 4
# Every allocation here. What torch allocates is 16-byte aligned, so the launches test
# other tensors only.
_empty_like = torch.empty_like
_new_empty = Tensor.new_empty
_CONSTANTS_ARE_PASSED = tuple(map(int, triton.__version__.split('.')[:2])) >= (3, 3)


@dataclass(frozen=True)
class Tile:
    """The block of one program, and how many programs and steps cover HW.

    `on_chip` programs hold all of their groups in one step. BLOCK_C is 0 in contiguous
    maps. `partials` counts those of a group; BLOCK_P of them are merged at a time.
    """

    on_chip: bool
    BLOCK_D: int
    BLOCK_C: int
    BLOCK_HW: int
    num_warps: int
    programs: int
    splits: int = 1
    steps: int = 1
    partials: int = 0
    BLOCK_P: int = 0


@dataclass(frozen=True)
class LaunchConfig:
    """Everything that the launches of one shape, dtype and layout read."""

    N: int
    C: int
    HW: int
    G: int
    channels_last: bool
    vector: int
    beyond_l2: bool
    fwd: Tile
    bwd: Tile
    bwd_sums: Tile

    @classmethod
    def for_shape(
        cls,
        N: int,
        C: int,
        HW: int,
        G: int,
        *,
        itemsize: int,
        channels_last: bool,
        sms: int = 132,
        limits: Limits | None = None,
    ) -> 'LaunchConfig':
        """The one place where block sizes, warps, splits and grids are chosen."""
        task = _Task(N, C, HW, G, itemsize, sms, limits or LIMITS)
        on_chip, split = (
            (_on_chip_nhwc, _split_nhwc)
            if channels_last
            else (_on_chip_nchw, _split_nchw)
        )
        bwd_split = split(task, forward=False)
        return cls(
            N=N,
            C=C,
            HW=HW,
            G=G,
            channels_last=channels_last,
            vector=16 // itemsize,
            beyond_l2=N * C * HW * itemsize > task.limits.l2_bytes,
            fwd=on_chip(task, forward=True) or split(task, forward=True),
            bwd=on_chip(task, forward=False) or bwd_split,
            bwd_sums=bwd_split,
        )

    @property
    def VEC(self) -> int:
        """Elements of a contiguous map's rows that move together."""
        return min(self.HW & -self.HW, self.vector)

    def sum_rows(self, tile: Tile) -> int:
        """Rows of the buffer of channel sums: one per sample and split."""
        return self.N * tile.splits


@dataclass(frozen=True)
class _Task:
    """What the choice of a tile depends on."""

    N: int
    C: int
    HW: int
    G: int
    itemsize: int
    sms: int
    limits: Limits

    @property
    def D(self) -> int:
        return self.C // self.G

    @property
    def one_wave(self) -> int:
        """Programs that run at the same time."""
        return self.limits.programs_per_sm * self.sms

    def split_elements(self, forward: bool) -> int:
        """Elements of a tile of the split regime."""
        if forward:
            return self.limits.split_fwd_bytes // self.itemsize
        return self.limits.split_bwd

    def fits(self, elements: int, programs: int, forward: bool) -> bool:
        """Whether a group of this many elements is worth keeping on chip."""
        limits = self.limits
        most = limits.on_chip_fwd if forward else limits.on_chip_bwd
        # Few programs leave most of the GPU idle; that only pays for small tiles, where
        # a second launch would cost more.
        busy = programs >= self.sms // 3 or elements <= limits.on_chip_small
        return elements <= most and busy


def _warps(elements: int, per_thread: int, most: int) -> int:
    return max(1, min(most, elements // (32 * max(1, per_thread))))


def _on_chip_warps(elements: int, forward: bool) -> int:
    # Backward holds x and dy, hence half of the elements in a thread.
    return _warps(elements, 32 if forward else 16, 16)


# What a program costs beside its tiles, in tiles: its start, its merges, its end.
_PROGRAM_IN_TILES = 2


def _split_tile(
    task: _Task,
    forward: bool,
    block: tuple[int, int, int],
    rows: int,
    pieces: int,
) -> Tile:
    """A split tile of block (BLOCK_D, BLOCK_C, BLOCK_HW).

    `rows` programs cover a map's channels, `pieces` of them one group's. HW is split so
    that as many programs as run at the same time have much the same to do.
    """
    BLOCK_D, BLOCK_C, BLOCK_HW = block
    elements = (BLOCK_C or BLOCK_D) * BLOCK_HW
    whole = task.split_elements(forward)
    # Addresses of short accesses take registers: with as many elements a thread, these
    # would spill.
    times_threads = 2 if not BLOCK_C and task.HW % 4 else 1
    tiles = triton.cdiv(task.HW, BLOCK_HW)
    # More programs of fewer threads run at the same time, 32 on an SM at most.
    wave = task.one_wave * max(1, min(16, whole // (times_threads * elements)))

    def steps_in(waves: int) -> int:
        return triton.cdiv(tiles, max(1, min(tiles, waves * wave // rows)))

    fewest = triton.cdiv(rows, wave)
    _, steps = min(
        (waves * (steps_in(waves) + _PROGRAM_IN_TILES), steps_in(waves))
        for waves in range(fewest, fewest + 4)
    )
    splits = triton.cdiv(tiles, steps)
    # Not from the splits at hand: a kernel for each size of map would have to be
    # compiled. The merge is a loop, and these are about as many as there ever are.
    partials = pieces * triton.cdiv(wave, rows)
    num_warps = _warps(elements, whole // (256 * times_threads), 8)
    groups = max(1, BLOCK_C // BLOCK_D)
    merge = max(1, task.limits.merge * num_warps // (8 * groups))
    return Tile(
        on_chip=False,
        BLOCK_D=BLOCK_D,
        BLOCK_C=BLOCK_C,
        BLOCK_HW=BLOCK_HW,
        num_warps=num_warps,
        programs=rows * splits,
        splits=splits,
        steps=steps,
        partials=pieces * splits,
        BLOCK_P=min(merge, triton.next_power_of_2(partials)),
    )


def _on_chip_nchw(task: _Task, forward: bool) -> Tile | None:
    # Forward reads the group as one flat range: only the backward pass needs sums per
    # channel, hence rows.
    BLOCK_D = 1 if forward else triton.next_power_of_2(task.D)
    BLOCK_HW = triton.next_power_of_2(task.D * task.HW if forward else task.HW)
    elements = BLOCK_D * BLOCK_HW
    programs = task.N * task.G
    if not task.fits(elements, programs, forward):
        return None
    warps = _on_chip_warps(elements, forward)
    return Tile(True, BLOCK_D, 0, BLOCK_HW, warps, programs)


def _split_nchw(task: _Task, forward: bool) -> Tile:
    elements = task.split_elements(forward)
    groups = task.N * task.G
    BLOCK_D = min(8, triton.next_power_of_2(task.D))
    BLOCK_HW = elements // BLOCK_D
    tiles = triton.cdiv(task.HW, BLOCK_HW)
    programs = groups * triton.cdiv(task.D, BLOCK_D) * tiles
    # Two shapes serve nearly all maps, so that few kernels have to be compiled: a small
    # one where the other leaves SMs idle, or lanes at the end of HW.
    if programs < 2 * task.one_wave or tiles * BLOCK_HW > 1.2 * task.HW:
        elements //= 4
        BLOCK_HW = min(BLOCK_HW // 4, triton.next_power_of_2(task.HW))
        BLOCK_D = min(triton.next_power_of_2(task.D), elements // BLOCK_HW)
    pieces = triton.cdiv(task.D, BLOCK_D)
    return _split_tile(
        task,
        forward,
        (BLOCK_D, 0, BLOCK_HW),
        rows=groups * pieces,
        pieces=pieces,
    )


def _column_block(task: _Task, BLOCK_D: int) -> tuple[int, int]:
    """BLOCK_C of pieces of about 128 bytes, and of all channels."""
    pieces = task.G * triton.cdiv(task.D, BLOCK_D)
    all_channels = triton.next_power_of_2(pieces) * BLOCK_D
    piece = max(BLOCK_D, task.limits.piece_bytes // task.itemsize)
    return min(all_channels, piece), all_channels


def _on_chip_nhwc(task: _Task, forward: bool) -> Tile | None:
    limits = task.limits
    BLOCK_D = triton.next_power_of_2(task.D)
    BLOCK_C, all_channels = _column_block(task, BLOCK_D)
    rows = triton.next_power_of_2(task.HW)
    most = limits.on_chip_fwd if forward else limits.on_chip_bwd
    half = limits.piece_bytes // task.itemsize // 2
    width = BLOCK_C
    if width * rows > most and width > max(BLOCK_D, half):
        width //= 2
    while width < all_channels and width * rows < limits.on_chip_min:
        width *= 2
    programs = task.N * triton.cdiv(task.G * BLOCK_D, width)
    if not task.fits(width * rows, programs, forward):
        return None
    warps = _on_chip_warps(width * rows, forward)
    return Tile(True, BLOCK_D, width, rows, warps, programs)


def _split_nhwc(task: _Task, forward: bool) -> Tile:
    elements = task.split_elements(forward)
    # Pieces of eight channels serve groups of any multiple of eight.
    BLOCK_D = 8 if task.D % 8 == 0 else triton.next_power_of_2(task.D)
    BLOCK_D = min(BLOCK_D, elements)
    pieces = triton.cdiv(task.D, BLOCK_D)
    BLOCK_C, _ = _column_block(task, BLOCK_D)
    columns = task.N * triton.cdiv(task.G * pieces * BLOCK_D, BLOCK_C)
    BLOCK_HW = max(1, min(elements // BLOCK_C, triton.next_power_of_2(task.HW)))
    while BLOCK_HW > 32 and columns * triton.cdiv(task.HW, BLOCK_HW) < task.one_wave:
        BLOCK_HW //= 2
    return _split_tile(
        task,
        forward,
        (BLOCK_D, BLOCK_C, BLOCK_HW),
        rows=columns,
        pieces=pieces,
    )


class Launch:
    """One kernel bound to its grid, sizes and constants; called with what is left.

    That is its pointers, and eps where it takes one.

    The first call whose pointers are all 16-byte `aligned` goes through Triton's
    argument analysis; later ones call the compiled kernel directly, which is valid
    because the kernels specialise on nothing but dtype (fixed per Launch) and
    alignment. Before Triton 3.3 compiled kernels took their arguments without the
    constants; there every call is analysed.
    """

    __slots__ = (
        '_compiled',
        '_rest',
        'constexprs',
        'grid',
        'kernel',
        'options',
        'scalars',
    )

    def __init__(
        self,
        kernel,
        programs: int,
        num_warps: int,
        scalars: dict[str, int],
        **constexprs,
    ):
        self.kernel = kernel
        self.grid = (programs, 1, 1)
        # Triton is about to change the default of fp fusion; the kernels want it.
        self.options = {'num_warps': num_warps, 'enable_fp_fusion': True}
        # In the order of the kernel's parameters; what it does not take drops out.
        names = kernel.arg_names
        self.constexprs = {n: constexprs[n] for n in names if n in constexprs}
        self.scalars = {n: scalars[n] for n in names if n in scalars}
        self._rest = (*self.scalars.values(), *self.constexprs.values())
        self._compiled = None

    def __call__(self, aligned: bool, *args: Tensor | float) -> None:
        if aligned and self._compiled is not None:
            self._compiled(*args, *self._rest)
            return
        compiled = self.kernel[self.grid](*args, *self._rest, **self.options)
        if aligned and compiled is not None and _CONSTANTS_ARE_PASSED:
            self._compiled = compiled[self.grid]


@dataclass(frozen=True)
class FwdPlan:
    """The forward launches of one configuration: on chip, or partials then apply.

    `part` is the shape of the partials.
    """

    config: LaunchConfig
    stats: Launch | None
    apply: Launch
    part: tuple[int, ...]


@dataclass(frozen=True)
class BwdPlan:
    """The backward launches: on chip, or partials then dx, which adds up dweight/dbias.

    `dwdb` does that where no `dx` follows. `part` is the shape of the partials. The
    channel sums have `rows` rows.
    """

    config: LaunchConfig
    tile: Tile
    sums: Launch
    dx: Launch | None
    dwdb: Launch | None
    part: tuple[int, ...]
    rows: int


def plan_fwd(
    config: LaunchConfig,
    *,
    weight: bool,
    bias: bool,
    activation: str | None,
    residual: bool,
) -> FwdPlan:
    """Binds the forward kernels to a configuration."""
    tile = config.fwd
    scalars, sizes = _sizes(config, tile)
    flags = {
        'HAS_WEIGHT': weight,
        'HAS_BIAS': bias,
        'HAS_RESIDUAL': residual,
        'ACTIVATION': activation,
    }
    warps = tile.num_warps
    if tile.on_chip:
        kernel = nhwc.gn_fwd_nhwc_kernel if config.channels_last else nchw.gn_fwd_kernel
        if not config.channels_last:
            # A group is one range, mostly better aligned than its rows.
            L = config.C // config.G * config.HW
            VEC = min(L & -L, config.vector)
            scalars['L_UNITS'] = L // VEC
            sizes.update(BLOCK_L=tile.BLOCK_HW, VEC=VEC)
        launch = Launch(kernel, tile.programs, warps, scalars, **sizes, **flags)
        return FwdPlan(config, None, launch, ())
    if config.channels_last:
        stats, apply = nhwc.gn_stats_partial_nhwc_kernel, nhwc.gn_apply_nhwc_kernel
    else:
        stats, apply = nchw.gn_stats_partial_kernel, nchw.gn_apply_kernel
    apply_sizes = {**sizes, 'BLOCK_P': tile.BLOCK_P}
    return FwdPlan(
        config,
        Launch(stats, tile.programs, warps, scalars, **sizes),
        Launch(apply, tile.programs, warps, scalars, **apply_sizes, **flags),
        _part(config, tile),
    )


def plan_bwd(
    config: LaunchConfig,
    *,
    weight: bool,
    bias: bool,
    activation: str | None,
    kept: bool,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> BwdPlan:
    """Binds the backward kernels; `kept` means an activation behind a residual."""
    tile = config.bwd if need_dx else config.bwd_sums
    scalars, sizes = _sizes(config, tile)
    store_sums = need_dweight or need_dbias
    affine = {'HAS_WEIGHT': weight, 'HAS_BIAS': bias}
    flags = {
        **affine,
        'HAS_KEPT': kept,
        'ACTIVATION': activation,
        'STORE_SUMS': store_sums,
    }
    kernels = nhwc if config.channels_last else nchw
    suffix = '_nhwc_kernel' if config.channels_last else '_kernel'
    first = getattr(kernels, ('gn_bwd' if tile.on_chip else 'gn_bwd_partial') + suffix)
    sums = Launch(first, tile.programs, tile.num_warps, scalars, **sizes, **flags)
    BLOCK_S = 8  # one 32-byte sector, so that narrow layers fill several SMs
    columns = triton.cdiv(config.C, BLOCK_S) if store_sums else 0
    needs = {'NEED_DWEIGHT': need_dweight, 'NEED_DBIAS': need_dbias, 'BLOCK_S': BLOCK_S}
    dx = dwdb = None
    if need_dx and not tile.on_chip:
        # Behind a residual this kernel reads the dz that the first wrote as dresidual.
        dx = Launch(
            getattr(kernels, 'gn_bwd_dx' + suffix),
            columns + tile.programs,
            tile.num_warps,
            scalars,
            **sizes,
            **affine,
            **needs,
            BLOCK_P=tile.BLOCK_P,
            BLOCK_R=16 * tile.num_warps,
            ACTIVATION=None if kept else activation,
        )
    elif store_sums:
        VEC = min(config.C & -config.C, 4)
        dwdb = Launch(
            shared.gn_bwd_dwdb_kernel,
            columns,
            4,
            {'ROWS': scalars['ROWS'], 'C_UNITS': config.C // VEC},
            VEC=VEC,
            BLOCK_R=128,
            **needs,
        )
    part = _part(config, tile)
    return BwdPlan(config, tile, sums, dx, dwdb, part, scalars['ROWS'])


def _part(config: LaunchConfig, tile: Tile) -> tuple[int, ...]:
    """The shape of the partials."""
    return (config.N, config.G, tile.partials, 2)


def _sizes(config: LaunchConfig, tile: Tile) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of a tile's launches, by name: run-time arguments, and constants.

    What the compiler has no use for is an argument: a kernel then serves many layers.
    """
    scalars = {
        'TILES': tile.steps,
        'SPLITS': tile.splits,
        'ROWS': config.sum_rows(tile),
        # A map that the L2 keeps is there for the next layer; a larger one would only
        # displace what the same pass reads again.
        'BEYOND_L2': int(config.beyond_l2),
    }
    constants = {'BLOCK_D': tile.BLOCK_D, 'BLOCK_HW': tile.BLOCK_HW}
    D = config.C // config.G
    if config.channels_last:
        VEC = min(config.C & -config.C, config.vector)
        scalars.update(HW=config.HW, C_UNITS=config.C // VEC, D=D)
        DENSE = D % tile.BLOCK_D == 0
        constants.update(VEC=VEC, DENSE=DENSE, BLOCK_C=tile.BLOCK_C)
    else:
        scalars.update(HW_UNITS=config.HW // config.VEC, D=D, G=config.G)
        constants['VEC'] = config.VEC
    return scalars, constants


def _config(
    shape: torch.Size, G: int, dtype: torch.dtype, channels_last: bool, device: int
) -> LaunchConfig:
    N, C = shape[:2]
    HW = shape[2:].numel()
    # One position: rows of channels are contiguous whatever the format; one channel:
    # both formats are the same and rows of HW are the wider ones.
    channels_last = HW == 1 or (channels_last and C > 1)
    sms = INTERPRETER_SMS
    if device >= 0:
        sms = torch.cuda.get_device_properties(device).multi_processor_count
    return LaunchConfig.for_shape(
        N, C, HW, G, itemsize=dtype.itemsize, channels_last=channels_last, sms=sms
    )


@functools.lru_cache(maxsize=4096)
def _cached_fwd(
    shape: torch.Size,
    G: int,
    dtype: torch.dtype,
    weight: torch.dtype | None,
    bias: torch.dtype | None,
    channels_last: bool,
    activation: str | None,
    residual: bool,
    device: int,
) -> FwdPlan:
    return plan_fwd(
        _config(shape, G, dtype, channels_last, device),
        weight=weight is not None,
        bias=bias is not None,
        activation=activation,
        residual=residual,
    )


@functools.lru_cache(maxsize=4096)
def _cached_bwd(
    shape: torch.Size,
    G: int,
    dtype: torch.dtype,
    weight: torch.dtype | None,
    bias: torch.dtype | None,
    channels_last: bool,
    activation: str | None,
    kept: bool,
    needs: tuple[bool, bool, bool],
    device: int,
) -> BwdPlan:
    need_dx, need_dweight, need_dbias = needs
    return plan_bwd(
        _config(shape, G, dtype, channels_last, device),
        weight=weight is not None,
        bias=bias is not None,
        activation=activation,
        kept=kept,
        need_dx=need_dx,
        need_dweight=need_dweight,
        need_dbias=need_dbias,
    )


def clear_plans() -> None:
    """Forgets cached launch choices, for a change of LIMITS."""
    _cached_fwd.cache_clear()
    _cached_bwd.cache_clear()


def _elsewhere(device: int) -> bool:
    """Whether this CUDA device has to be made current before a launch on it."""
    return device >= 0 and device != torch.cuda.current_device()


def group_norm_fwd(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    residual: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, rstd) of y = act(GN(x) + residual); mean, rstd (N, G) in fp32."""
    device = x.get_device()
    if _elsewhere(device):
        with torch.cuda.device(device):
            return group_norm_fwd(
                x, num_groups, weight, bias, eps, activation, residual
            )
    x, fmt = dense(x)
    shape = x.shape
    y = _empty_like(x, memory_format=fmt)
    mean = _new_empty(x, (shape[0], num_groups), dtype=torch.float32)
    rstd = _empty_like(mean)
    if shape[0] == 0:
        return y, mean, rstd
    plan = _cached_fwd(
        shape,
        num_groups,
        x.dtype,
        None if weight is None else weight.dtype,
        None if bias is None else bias.dtype,
        fmt is not torch.contiguous_format,
        activation,
        residual is not None,
        device,
    )
    weight = x if weight is None else weight.contiguous()
    bias = x if bias is None else bias.contiguous()
    residual = x if residual is None else to_format(residual, fmt)
    aligned = not 15 & (
        x.data_ptr() | weight.data_ptr() | bias.data_ptr() | residual.data_ptr()
    )
    pointers = (x, weight, bias, residual, y, mean, rstd)
    if plan.stats is None:
        plan.apply(aligned, *pointers, eps)
        return y, mean, rstd
    part = _new_empty(mean, plan.part)
    plan.stats(aligned, x, part)
    plan.apply(aligned, *pointers, part, eps)
    return y, mean, rstd


def group_norm_bwd(
    dy: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str | None,
    kept: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """(dx, dweight, dbias, dresidual); None where `needs` (the first three) is False.

    Where an activation followed a residual, `kept` is y for a ReLU and the residual for
    SiLU, and dresidual is dy through the activation; else both are None. `eps` is part
    of the signature for implementations that recompute the forward pass.
    """
    device = x.get_device()
    if _elsewhere(device):
        with torch.cuda.device(device):
            return group_norm_bwd(
                dy,
                x,
                num_groups,
                weight,
                bias,
                eps,
                activation,
                kept,
                mean,
                rstd,
                needs,
            )
    x, fmt = dense(x)
    dy = to_format(dy, fmt)
    shape = x.shape
    need_dx, need_dweight, need_dbias = needs
    dx = _empty_like(x, memory_format=fmt) if need_dx else None
    dweight = _empty_like(weight) if need_dweight else None
    dbias = _empty_like(bias) if need_dbias else None
    dresidual = None if kept is None else _empty_like(x, memory_format=fmt)
    if shape[0] == 0:
        for gradient in (dweight, dbias):
            if gradient is not None:
                gradient.zero_()
        return dx, dweight, dbias, dresidual
    plan = _cached_bwd(
        shape,
        num_groups,
        x.dtype,
        None if weight is None else weight.dtype,
        None if bias is None else bias.dtype,
        fmt is not torch.contiguous_format,
        activation,
        kept is not None,
        needs,
        device,
    )
    weight = x if weight is None else weight.contiguous()
    bias = x if bias is None else bias.contiguous()
    kept = x if kept is None else to_format(kept, fmt)
    aligned = not 15 & (
        dy.data_ptr()
        | x.data_ptr()
        | kept.data_ptr()
        | weight.data_ptr()
        | bias.data_ptr()
        | mean.data_ptr()
        | rstd.data_ptr()
    )
    dz = x if dresidual is None else dresidual
    no_sums = dweight is None and dbias is None
    sums = x if no_sums else _new_empty(mean, (2, plan.rows, shape[1]))
    totals = (sums, x if dweight is None else dweight, x if dbias is None else dbias)
    inputs = (dy, x, kept, weight, bias, mean, rstd)
    if plan.tile.on_chip:
        plan.sums(aligned, *inputs, dx, dz, sums)
    else:
        part = _new_empty(mean, plan.part)
        plan.sums(aligned, *inputs, dz, sums, part)
        if plan.dx is not None:
            dz = dy if dresidual is None else dresidual
            pointers = (dz, x, weight, bias, mean, rstd, dx, part)
            plan.dx(aligned, *pointers, *totals)
    if plan.dwdb is not None:
        plan.dwdb(aligned, *totals)
    return dx, dweight, dbias, dresidual


def probe(device: torch.device | str) -> None:
    """A first small launch on a device: raises what keeps it from running."""
    x = torch.zeros(1, 1, 2, device=device)
    group_norm_fwd(x, 1, None, None, 1e-5, None, None)
