"""What one launch executes: instructions, sectors, registers and its time line.

The PTX runs in the emulator of `tests/ptx`, a sample of its CTAs on pointers to
nothing; control flow and addresses of these kernels do not depend on data. Sums are
scaled to the grid.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from benchmarks.captured_launches import CapturedLaunch
from benchmarks.hardware import H100, Hardware
from tests.ptx.compile import Compiled
from tests.ptx.execute import Step, steps
from tests.ptx.launch import launch as emulate
from tests.ptx.memory import SECTOR, Unbacked
from tests.ptx.parse import Address, Instruction, Program, Unsupported

# CTAs of a launch that are executed, and about how many elements of a map.
SAMPLE, SAMPLED_ELEMENTS = 64, 1 << 22
WARPS_OF_SM = 64
_counted: dict[tuple, LaunchCounts] = {}
_ARITHMETIC = ('float', 'integer', 'convert', 'special')


@dataclass(frozen=True)
class Traffic:
    """Bytes of one map in one direction, of the whole grid.

    `asked` by active lanes, `requested` in the 32-byte sectors of each warp's access,
    `fetched` in sectors once a CTA and pass, `distinct` once a launch; `passes` over
    the map; `streamed` where the cache is told not to keep them.
    """

    asked: float
    requested: float
    fetched: float
    distinct: float
    passes: int
    streamed: bool


@dataclass(frozen=True)
class TimeLine:
    """Seconds of one program alone on an SM: until its first access to a map, until its
    last one has arrived, and after it."""

    before: float
    stream: float
    after: float

    @property
    def whole(self) -> float:
        return self.before + self.stream + self.after


@dataclass(frozen=True)
class LaunchCounts:
    """One launch of `programs` CTAs; `instructions` and `pipes` count warps.

    `maps` is by (argument, 'ld' or 'st'); `small` are the bytes of all other tensors,
    in sectors once a CTA. `spilled` bytes of a thread are in no other number.
    """

    kernel: str
    programs: int
    warps: int
    registers: int
    spilled: int
    per_sm: int
    instructions: float
    pipes: dict[str, float]
    maps: dict[tuple[str, str], Traffic]
    small: float
    line: TimeLine

    @property
    def occupancy(self) -> float:
        """Warps on an SM over the most that it can hold."""
        return self.per_sm * self.warps / WARPS_OF_SM

    @property
    def cached(self) -> float:
        """Bytes of maps that the launch leaves in an L2 without end."""
        return sum(t.distinct for t in self.maps.values() if not t.streamed)


def pipe(opcode: str) -> str | None:
    """The pipe of an SM that an instruction occupies most, if any."""
    name = opcode.split('.')[0]
    if name in ('ld', 'st', 'ldmatrix', 'stmatrix', 'atom', 'red'):
        return None if 'param' in opcode else 'lsu'
    if name == 'shfl':
        return 'shuffle'
    if name in ('div', 'sqrt', 'rsqrt', 'rcp', 'ex2', 'lg2') and 'f32' in opcode:
        return 'special'
    if name == 'cvt' and ('f32' in opcode or 'x2' in opcode):
        # From bfloat16 it is a shift.
        return 'integer' if 'f32.bf16' in opcode else 'convert'
    if name in ('add', 'sub', 'mul', 'fma', 'neg') and 'f32' in opcode:
        return 'float'
    return None if name in ('mov', 'bra', 'ret', 'bar', 'createpolicy') else 'integer'


def issues(opcode: str) -> bool:
    """Whether ptxas leaves an instruction of it: renamed registers vanish."""
    return not opcode.startswith(('mov.b32', 'mov.u32', 'ld.param'))


def resident(registers: int, threads: int, shared: int, hardware: Hardware) -> int:
    """CTAs that fit on one SM; a warp gets registers in units of 256."""
    of_warp = math.ceil(max(registers, 1) * 32 / 256) * 256
    fits = (
        hardware.registers // (of_warp * (threads // 32)),
        hardware.threads // threads,
        hardware.shared // (shared + 1024),
        32,
    )
    return max(1, min(fits))


def count(
    launch: CapturedLaunch, elements: int, hardware: Hardware = H100
) -> LaunchCounts:
    """Counts of a launch whose maps have `elements` elements.

    Raises:
        Unsupported: For PTX that the emulator does not know.
    """
    shapes = (getattr(value, 'shape', value) for value in launch.arguments.values())
    key = (launch.ptx, launch.grid, tuple(shapes), elements, hardware.name)
    if key not in _counted:
        _counted[key] = _count(launch, elements, hardware)
    return _counted[key]


def _count(launch: CapturedLaunch, elements: int, hardware: Hardware) -> LaunchCounts:
    compiled = Compiled(
        ptx=_without_atomics(launch.ptx),
        cubin=launch.compiled.asm['cubin'],
        arguments=tuple(launch.arguments),
        shared_bytes=launch.compiled.metadata.shared,
    )
    vars(compiled)['steps'] = _steps(compiled.program)
    arguments = _unbacked(launch)
    ctas = _sample(launch.programs, elements)
    scale = launch.programs / len(ctas)
    counts = emulate(compiled, launch.grid, arguments, ctas)
    size = {
        name: value.numel() * value.element_size()
        for name, value in launch.arguments.items()
        # The least is a mask of one bit an element; sums and partials are far smaller.
        if isinstance(value, Tensor) and value.numel() * 8 >= elements
    }
    trace, active = _trace(compiled, launch, arguments)
    streamed = _streamed(compiled, launch, active)
    maps, small = {}, 0.0
    for (name, kind), traffic in counts.traffic.items():
        if name not in size:
            small += traffic.per_cta * SECTOR * scale
            continue
        # Maps are read or written whole, which the sample meets by chance only.
        passes = max(1, round(traffic.lane_bytes * scale / size[name]))
        whole = passes * size[name] / traffic.lane_bytes
        maps[name, kind] = Traffic(
            asked=traffic.lane_bytes * whole,
            requested=traffic.sectors * SECTOR * whole,
            fetched=traffic.per_cta * SECTOR * whole * _passes_of_cta(traffic),
            distinct=size[name],
            passes=passes,
            streamed=(name, kind) in streamed,
        )
    pipes: Counter = Counter()
    for opcode, times in counts.instructions.items():
        if pipe(opcode):
            pipes[pipe(opcode)] += times * scale
    issued = sum(n for opcode, n in counts.instructions.items() if issues(opcode))
    used = compiled.resources
    threads = compiled.program.threads
    return LaunchCounts(
        kernel=launch.name,
        programs=launch.programs,
        warps=threads // 32,
        registers=used.registers,
        spilled=used.stack + used.local,
        per_sm=resident(used.registers, threads, compiled.shared_bytes, hardware),
        instructions=issued * scale,
        pipes=dict(pipes),
        maps=maps,
        small=small,
        line=_time_line(compiled, launch, trace, set(size), hardware),
    )


def _passes_of_cta(traffic) -> int:
    """How often a CTA comes back to what it has read: beyond its L1, by then."""
    return max(1, round(traffic.lane_bytes / (traffic.per_cta * SECTOR)))


def _sample(programs: int, elements: int) -> np.ndarray:
    """CTAs that stand for the grid: one of each of as many equal stretches, by chance,
    as an even step would meet the same part of a map each time."""
    size = min(SAMPLE, max(2, programs * SAMPLED_ELEMENTS // elements))
    if programs <= 2 * size:
        return np.arange(programs)
    edges = np.arange(size + 1) * programs // size
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


def _unbacked(launch: CapturedLaunch) -> list:
    """Pointers that stand for the tensors; one for each tensor, however often."""
    pointers: dict[int, Unbacked] = {}
    arguments = []
    for value in launch.arguments.values():
        if isinstance(value, Tensor):
            size = value.numel() * value.element_size()
            value = pointers.setdefault(value.data_ptr(), Unbacked(size))
        arguments.append(value)
    return arguments


def _without_atomics(ptx: str) -> str:
    """Sums across CTAs as the stores that they cost at least."""
    return re.sub(
        r'(?:atom|red)\.global[\w.:]*\.add(?:\.noftz)?\.([fb]\w+)\s+'
        r'(?:%\w+, )?(\[[^\]]*\]), (%\w+);',
        lambda m: f'st.global.b{m[1][-2:]} {m[2]}, {m[3]};',
        ptx,
    )


def _steps(program: Program) -> tuple[Step | None, ...]:
    """The instructions as functions; arithmetic that the emulator does not know, which
    only other projects' kernels have, gives zeros: no count depends on it."""
    made = []
    for instruction in program.instructions:
        try:
            made += steps(replace(program, instructions=(instruction,)))
        except Unsupported:
            if pipe(instruction.opcode) not in _ARITHMETIC:
                raise
            made.append(_zeros(instruction))
    return tuple(made)


def _zeros(instruction: Instruction) -> Step:
    kind = instruction.modifiers[-1]
    size = 4 if kind.endswith('x2') else int(kind.lstrip('bf')) // 8
    zero = np.zeros((1, 1), f'u{size}')
    return lambda cohort, guard: cohort.write(instruction.operands[0], zero, guard)


def _origins(compiled: Compiled, launch: CapturedLaunch) -> dict[str, str]:
    """The tensor that a register points into, by the parameter it comes from."""
    parameters = [name for name, _ in compiled.program.parameters]
    tensor = {
        parameter: name
        for parameter, (name, value) in zip(
            parameters, launch.arguments.items(), strict=False
        )
        if isinstance(value, Tensor)
    }
    origin: dict[str, str] = {}
    for i in compiled.program.instructions:
        source = i.operands[1:]
        if i.opcode.startswith('ld.param'):
            source = (source[0].base,)
        for operand in source:
            found = tensor.get(operand) or origin.get(operand)
            if found and (i.opcode[-2:] == '64' or 'wide' in i.modifiers):
                origin[i.operands[0]] = found
    return origin


def _address(instruction: Instruction) -> str | None:
    """The register that an access to global memory goes by."""
    if instruction.name in ('ld', 'st') and 'global' in instruction.modifiers:
        return next(o.base for o in instruction.operands if isinstance(o, Address))
    return None


def _streamed(
    compiled: Compiled, launch: CapturedLaunch, active: set[int]
) -> set[tuple[str, str]]:
    """(argument, 'ld' or 'st') of accesses made that ask to be evicted first."""
    origin = _origins(compiled, launch)
    accesses = [compiled.program.instructions[at] for at in active]
    return {
        (origin.get(_address(i)), i.name)
        for i in accesses
        if _address(i) and 'L1::evict_first' in i.modifiers
    }


def _trace(
    compiled: Compiled, launch: CapturedLaunch, arguments: list
) -> tuple[list[int], set[int]]:
    """The instructions of one CTA in order, without branches, and those of them that
    execute in a thread."""
    order: list[int] = []
    active: set[int] = set()

    def recorded(at, step):
        def run(cohort, guard):
            order.append(at)
            if guard is None or guard.any():
                active.add(at)
            step(cohort, guard)

        return run

    traced = Compiled(
        compiled.ptx, compiled.cubin, compiled.arguments, compiled.shared_bytes
    )
    vars(traced)['program'] = compiled.program
    vars(traced)['steps'] = tuple(
        step and recorded(at, step) for at, step in enumerate(compiled.steps)
    )
    middle = [launch.programs // 2]
    emulate(traced, launch.grid, arguments, middle, count=False)
    return order, active


@dataclass(frozen=True)
class _Step:
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    wait: float
    cycle: float
    access: str | None
    of_map: bool


def _registers(operand) -> tuple[str, ...]:
    if isinstance(operand, Address):
        return (operand.base,)
    return operand if isinstance(operand, tuple) else tuple(operand.split('|'))


def _timed(i: Instruction, of_map: bool, hardware: Hardware) -> _Step:
    stores = i.name in ('st', 'stmatrix', 'bar')
    space = i.modifiers[0] if i.name in ('ld', 'st') else None
    if not issues(i.opcode):
        wait = 0.0
    elif (i.name, space) == ('ld', 'global'):
        wait = hardware.dram_latency if of_map else hardware.l2_latency
    elif space == 'shared' or i.name in ('bar', 'ldmatrix'):
        wait = hardware.latency['shared']
    else:
        wait = hardware.latency.get(pipe(i.opcode) or '', hardware.latency['float'])
    sources = i.operands if stores else i.operands[1:]
    reads = tuple(r for operand in sources for r in _registers(operand))
    return _Step(
        reads if i.guard is None else (*reads, i.guard),
        () if stores else _registers(i.operands[0]),
        wait,
        1 / hardware.clock if issues(i.opcode) else 0.0,
        i.name if space == 'global' else 'bar' if i.name == 'bar' else None,
        of_map,
    )


def _time_line(
    compiled: Compiled,
    launch: CapturedLaunch,
    trace: list[int],
    maps: set[str],
    hardware: Hardware,
) -> TimeLine:
    """One warp of a program, as if the others were at the same place.

    Within straight code ptxas may move instructions: each starts when its operands are
    there, loads not before stores that stand ahead of them. Straight code ends at
    branches, labels and barriers; there the warp goes on when all before has started.
    """
    origin = _origins(compiled, launch)
    instructions = compiled.program.instructions
    steps = [
        None
        if i.name in ('bra', 'ret')
        else _timed(i, origin.get(_address(i) or '') in maps, hardware)
        for i in instructions
    ]
    joins = set(compiled.program.labels.values())
    ready: dict[str, float] = {}
    begin = issued = latest = stored = 0.0
    first, last, previous = None, 0.0, -1
    for at in trace:
        step = steps[at]
        if at != previous + 1 or at in joins or step.access == 'bar':
            begin = stored = max(issued, latest)
            issued = begin
        previous = at
        start = max([begin, *(ready.get(name, 0.0) for name in step.reads)])
        if step.access == 'ld':
            start = max(start, stored)
        elif step.access == 'st':
            stored = max(stored, start)
        issued += step.cycle
        latest = max(latest, start)
        arrived = start + step.cycle + step.wait
        if step.access == 'bar':
            issued = latest = arrived
        for name in step.writes:
            ready[name] = arrived
        if step.of_map:
            first = start if first is None else first
            last = max(last, arrived if step.access == 'ld' else start)
    end = max([issued, latest, *ready.values()])
    if first is None:
        return TimeLine(end, 0.0, 0.0)
    return TimeLine(first, last - first, max(0.0, end - last))
