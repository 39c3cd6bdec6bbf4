"""Executes a program in lockstep over CTAs and threads, with NumPy.

A register is an array that broadcasts to [CTAs, threads]: what depends on neither has
one element. CTAs run together, as a cohort, until a branch parts them. Where threads of
one CTA part, those run first that are farther behind, until all meet again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.ptx.arithmetic import TYPES, operation
from tests.ptx.counts import WARP, Counts, SectorCounter, wavefronts
from tests.ptx.memory import EMPTY, WRITTEN, Fault, GlobalMemory, SharedMemory
from tests.ptx.parse import Address, Instruction, Program, Unsupported

Guard = np.ndarray | None
Step = Callable[['Cohort', Guard], None]

_CACHE_HINTS = {
    *('ca', 'cg', 'cs', 'lu', 'wb', 'wt', 'L1::evict_last', 'L1::evict_first'),
    *('L1::evict_normal', 'L1::no_allocate', 'L2::cache_hint', 'nc'),
}
# Threads of a warp, or of the CTA, execute these together.
_COLLECTIVE = ('bar', 'shfl', 'ldmatrix', 'stmatrix')
_CARRIERS = {1: 'u1', 2: 'u2', 4: 'u4', 8: 'u8', 16: 'c16'}


@dataclass
class Execution:
    """One launch in progress: what all of its CTAs share."""

    program: Program
    steps: tuple[Step | None, ...]
    parameters: dict[str, np.ndarray]
    memory: GlobalMemory
    shared_bytes: int
    grid: tuple[int, int, int]
    counts: Counts
    count: bool

    def run(self, order: np.ndarray, lanes: int) -> None:
        """Runs the CTAs of these indices, so many at a time that they fill `lanes`."""
        together = max(1, lanes // self.program.threads)
        executed = np.zeros(len(self.steps), 'i8')
        with np.errstate(all='ignore'):
            for first in range(0, len(order), together):
                ctas = order[first : first + together]
                self.sectors = SectorCounter(self.counts)
                # Where addresses repeat from CTA to CTA so do conflicts of banks.
                self.bank_cache: dict[tuple, tuple[int, int]] = {}
                self._run(Cohort.first(self, ctas), executed)
                self.sectors.finish()
        for instruction, times in zip(self.program.instructions, executed, strict=True):
            self.counts.instructions[instruction.opcode] += int(times)
            if instruction.opcode == 'bar.sync':
                self.counts.barriers += int(times) // self.counts.warps
        for (name, kind), traffic in self.counts.traffic.items():
            (buffer,) = (b for b in self.memory.buffers if b.name == name)
            traffic.distinct = int(buffer.touched[kind].sum())

    def _run(self, cohort: Cohort, executed: np.ndarray) -> None:
        """Runs a cohort, and those that part from it, to the end."""
        waiting = [cohort]
        while waiting:
            cohort = waiting.pop()
            while cohort is not None:
                executed[cohort.at] += cohort.active_warps
                step = self.steps[cohort.at]
                if step is not None:
                    step(cohort, cohort.guard)
                    cohort.move_to(cohort.at + 1)
                else:
                    cohort = self._branch(cohort, waiting)

    def _branch(self, cohort: Cohort, waiting: list[Cohort]) -> Cohort | None:
        """Goes where a branch or ret leads; None where the cohort has ended."""
        instruction = self.program.instructions[cohort.at]
        taken = cohort.agreed(cohort.guard) if cohort.mask is None else None
        if taken is None:
            if instruction.name == 'ret':
                raise Unsupported(f'threads of a CTA end apart: {cohort.text}')
            cohort.part_threads(self.program.labels[instruction.operands[0]])
            return cohort
        if not taken.any():
            cohort.move_to(cohort.at + 1)
            return cohort
        if not taken.all():
            waiting.append(cohort.part(np.flatnonzero(~taken), cohort.at + 1))
            cohort = cohort.part(np.flatnonzero(taken), cohort.at)
        if instruction.name == 'ret':
            return None
        cohort.move_to(self.program.labels[instruction.operands[0]])
        return cohort


class Cohort:
    """CTAs of a launch that run together.

    Their threads are at the instruction `at`. Where threads of a CTA have parted only
    those of `mask` are, and `elsewhere` has the masks of the others by instruction.
    """

    def __init__(self, execution, ctas, registers, shared, at):
        self.execution: Execution = execution
        self.ctas: np.ndarray = ctas
        self.registers: dict[str, np.ndarray] = registers
        self.shared: SharedMemory = shared
        self.at: int = at
        self.mask: Guard = None
        self.elsewhere: dict[int, np.ndarray] = {}

    @classmethod
    def first(cls, execution: Execution, ctas: np.ndarray) -> Cohort:
        """CTAs about to start."""
        width, height, depth = execution.grid
        one = np.ones((1, 1), 'u4')
        registers = {'%tid.x': np.arange(execution.program.threads, dtype='u4')[None]}
        registers |= {'%tid.y': 0 * one, '%tid.z': 0 * one}
        index = ctas.astype('u4')[:, None]
        registers['%ctaid.x'] = index % np.uint32(width)
        registers['%ctaid.y'] = index // np.uint32(width) % np.uint32(height)
        registers['%ctaid.z'] = index // np.uint32(width * height)
        registers['%ntid.x'] = one * np.uint32(execution.program.threads)
        for axis, size in zip('xyz', (width, height, depth), strict=True):
            registers[f'%nctaid.{axis}'] = one * np.uint32(size)
        shared = SharedMemory.new(len(ctas), execution.shared_bytes)
        return cls(execution, ctas, registers, shared, 0)

    def part(self, rows: np.ndarray, at: int) -> Cohort:
        """Some of the CTAs, at another instruction."""
        registers = {
            name: value if len(value) == 1 else value[rows]
            for name, value in self.registers.items()
        }
        return Cohort(
            self.execution, self.ctas[rows], registers, self.shared.part(rows), at
        )

    @property
    def text(self) -> str:
        """The instruction, for messages."""
        program = self.execution.program
        return f'{program.name}: {program.instructions[self.at].text}'

    @property
    def shape(self) -> tuple[int, int]:
        """(CTAs, threads)."""
        return len(self.ctas), self.execution.program.threads

    @property
    def active_warps(self) -> int:
        """Warps, of all CTAs, with a thread at the instruction."""
        if self.mask is None:
            return len(self.ctas) * self.execution.counts.warps
        return int(_by_warp(self.mask).any(axis=-1).sum())

    @property
    def guard(self) -> Guard:
        """Threads in which the instruction executes; None for all."""
        instruction = self.execution.program.instructions[self.at]
        if instruction.guard is None:
            return self.mask
        guard = self.read(instruction.guard, '?')
        guard = ~guard if instruction.negated else guard
        return guard if self.mask is None else guard & self.mask

    def agreed(self, guard: Guard) -> Guard:
        """The guard of each CTA; None where threads of one disagree."""
        if guard is None:
            return np.ones(len(self.ctas), '?')
        agreed = guard.all(axis=1)
        if (agreed != guard.any(axis=1)).any():
            return None
        return np.broadcast_to(agreed, len(self.ctas))

    def move_to(self, at: int) -> None:
        """Goes on at an instruction, or first with threads that are behind."""
        if self.elsewhere:
            self._place(at, self.mask)
            self._choose()
        else:
            self.at = at

    def part_threads(self, target: int) -> None:
        """A branch that some threads take and others do not."""
        everyone = np.ones(self.shape, '?')
        here = everyone if self.mask is None else self.mask
        taken = (
            everyone if self.guard is None else np.broadcast_to(self.guard, self.shape)
        )
        self._place(target, here & taken)
        self._place(self.at + 1, here & ~taken)
        self._choose()

    def _place(self, at: int, mask: np.ndarray) -> None:
        if mask.any():
            self.elsewhere[at] = self.elsewhere.get(at, False) | mask

    def _choose(self) -> None:
        """Those go on who are farthest behind and need not wait for the others.

        Code is laid out so that the threads then meet where their ways join.
        """
        for at in sorted(self.elsewhere):
            if self._complete(at):
                self.at, self.mask = at, self.elsewhere.pop(at)
                if self.mask.all():
                    self.mask = None
                return
        raise Unsupported(f'threads of a CTA wait for each other: {self.text}')

    def _complete(self, at: int) -> bool:
        """Whether all threads are there that an instruction needs."""
        instruction = self.execution.program.instructions[at]
        if instruction.name not in _COLLECTIVE:
            return True
        mask = self.elsewhere[at]
        if instruction.name == 'bar' and 'warp' not in instruction.modifiers:
            return bool(mask.all())
        warps = _by_warp(mask)
        return bool((warps.all(axis=-1) == warps.any(axis=-1)).all())

    def read(self, operand: str, dtype: str) -> np.ndarray:
        """A register, constant or symbol as a NumPy type of its own width."""
        value = self.registers.get(operand)
        if value is None:
            if operand[0] == '%':
                raise Unsupported(f'nothing wrote {operand}: {self.text}')
            value = self.registers[operand] = _constant(operand, dtype)
        if value.dtype == dtype:
            return value
        if operand[0] != '%':  # a constant may stand in two widths
            return _constant(operand, dtype)
        if value.dtype == '?' or dtype == '?' or value.itemsize != int(dtype[1]):
            raise Unsupported(f'{operand} is {value.dtype}, not {dtype}: {self.text}')
        return value.view(dtype)

    def write(self, operand: str, value: np.ndarray, guard: Guard = None) -> None:
        """A register, in the threads of the guard."""
        if value.dtype != '?':
            value = value.view(f'u{value.itemsize}')
        if guard is not None:
            value = np.where(guard, value, self.before(operand, value.dtype))
        self.registers[operand] = value

    def before(self, operand: str, dtype: np.dtype) -> np.ndarray:
        """What a register holds where it is not written: no value to use, at first."""
        value = self.registers.get(operand)
        if value is None:
            return np.full((1, 1), 0 if dtype == '?' else np.iinfo(dtype).max, dtype)
        return value


def _by_warp(mask: np.ndarray) -> np.ndarray:
    return mask.reshape(len(mask), -1, WARP)


def _constant(text: str, dtype: str) -> np.ndarray:
    if text == 'global_smem':  # shared memory starts at 0
        return np.zeros((1, 1), dtype)
    if dtype == '?':
        return np.array([[int(text, 0) != 0]])
    size = np.dtype(dtype).itemsize
    if re.fullmatch(r'0[fF][0-9A-Fa-f]{8}', text) and size == 4:
        bits = int(text[2:], 16)
    elif re.fullmatch(r'-?(0x[0-9A-Fa-f]+|\d+)U?', text):
        bits = int(text.rstrip('U'), 0) & ((1 << 8 * size) - 1)
    else:
        raise Unsupported(f'operand {text}')
    return np.array([[bits]], f'u{size}').view(dtype)


# --- From instructions to steps


def steps(program: Program) -> tuple[Step | None, ...]:
    """What each instruction does to a cohort; None for branches and ret."""
    return tuple(_step(instruction, program) for instruction in program.instructions)


def _step(instruction: Instruction, program: Program) -> Step | None:
    name = instruction.name
    if name in ('bra', 'ret'):
        if name == 'bra' and str(instruction.operands[0]) not in program.labels:
            raise Unsupported(f'{program.name}: {instruction.text}')
        return None
    make = _STEPS.get(name, _arithmetic_step)
    step = make(instruction)
    if step is None:
        raise Unsupported(f'{program.name}: {instruction.text}')
    return step


def _arithmetic_step(instruction: Instruction) -> Step | None:
    if instruction.name == 'setp' and instruction.modifiers[-1].endswith('x2'):
        return _packed_comparison(instruction)
    known = operation(instruction.name, instruction.modifiers)
    to, *sources = instruction.operands
    if len(sources) != len(known.sources) or not all(
        isinstance(operand, str) for operand in instruction.operands
    ):
        return None
    function = known.function
    pairs = tuple(zip(sources, known.sources, strict=True))

    def step(cohort, guard):
        values = [cohort.read(source, dtype) for source, dtype in pairs]
        cohort.write(to, function(*values), guard)

    return step


def _packed_comparison(instruction: Instruction) -> Step | None:
    *test, kind = instruction.modifiers
    compare = operation('setp', (*test, kind.removesuffix('x2')))
    to, *sources = instruction.operands
    low, bar, high = str(to).partition('|')
    if not bar:
        return None
    dtype = compare.sources[0]

    def step(cohort, guard):
        words = [cohort.read(source, 'u4') for source in sources]
        for target, shift in ((low, 0), (high, 16)):
            halves = [(w >> np.uint32(shift)).astype('u2').view(dtype) for w in words]
            cohort.write(target, compare.function(*halves), guard)

    return step


def _move(instruction: Instruction) -> Step | None:
    (kind,) = instruction.modifiers
    to, source = instruction.operands
    dtype = TYPES[kind].replace('i', 'u').replace('f', 'u')
    if isinstance(to, tuple):
        return _unpack(to, source, dtype)
    if isinstance(source, tuple):
        return _pack(to, source, dtype)
    return lambda cohort, guard: cohort.write(to, cohort.read(source, dtype), guard)


def _unpack(names: tuple[str, ...], source: str, dtype: str) -> Step:
    bits = 8 * int(dtype[1]) // len(names)

    def step(cohort, guard):
        value = cohort.read(source, dtype)
        for i, name in enumerate(names):
            if name != '_':
                part = value >> np.array(i * bits, dtype)
                cohort.write(name, part.astype(f'u{bits // 8}'), guard)

    return step


def _pack(to: str, names: tuple[str, ...], dtype: str) -> Step:
    bits = 8 * int(dtype[1]) // len(names)

    def step(cohort, guard):
        value = np.zeros(1, dtype)
        for i, name in enumerate(names):
            part = cohort.read(name, f'u{bits // 8}').astype(dtype)
            value = value | part << np.array(i * bits, dtype)
        cohort.write(to, value, guard)

    return step


def _shuffle(instruction: Instruction) -> Step | None:
    to, source, lane, clamp, members = map(str, instruction.operands)
    sync, mode, kind = instruction.modifiers
    whole = {'bfly': '31', 'idx': '31', 'down': '31', 'up': '0'}
    known = (sync, kind, members) == ('sync', 'b32', '-1')
    if not known or whole.get(mode) != clamp or instruction.guard or '|' in to:
        return None

    def step(cohort, guard):
        value = cohort.read(source, 'u4')
        if value.shape[1] > 1:
            thread = np.arange(value.shape[1])[None]
            own, by = thread % WARP, cohort.read(lane, 'u4').astype('i8') % WARP
            other = {
                'bfly': own ^ by, 'idx': by + 0 * own, 'down': own + by, 'up': own - by
            }[mode]  # fmt: skip
            other = np.where((other < 0) | (other >= WARP), own, other)
            other = thread - own + other
            shape = np.broadcast_shapes(value.shape, other.shape)
            value = np.take_along_axis(
                np.broadcast_to(value, shape), np.broadcast_to(other, shape), axis=1
            )
        cohort.write(to, value, guard)

    return step


def _barrier(instruction: Instruction) -> Step | None:
    known = {('sync', '0'): True, ('warp', '-1'): False}
    place = instruction.modifiers[0], instruction.operands[0]
    if len(instruction.operands) != 1 or place not in known or instruction.guard:
        return None
    of_cta = known[place]
    return lambda cohort, guard: cohort.shared.owners.barrier(of_cta)


def _trap(instruction: Instruction) -> Step:
    def step(cohort, guard):
        if guard is None or guard.any():
            raise Fault(cohort.text)

    return step


def _policy(instruction: Instruction) -> Step:
    """createpolicy: how long the L2 keeps lines, which no value depends on."""
    to = str(instruction.operands[0])
    return lambda cohort, guard: cohort.write(to, np.zeros((1, 1), 'u8'))


# --- Memory


def _load_or_store(instruction: Instruction) -> Step | None:
    kind, (space, *options, type_) = instruction.name, instruction.modifiers
    dtype = TYPES[type_].replace('i', 'u').replace('f', 'u')
    if space == 'param':
        return _parameter(instruction, dtype) if not options and kind == 'ld' else None
    access = {'global': _access_global, 'shared': _access_shared}.get(space)
    operands = instruction.operands
    if 'L2::cache_hint' in options:
        operands = operands[:-1]
    address, names = operands if kind == 'st' else operands[::-1]
    names = names if isinstance(names, tuple) else (names,)
    count = 1
    if options and re.fullmatch(r'v[248]', options[-1]):
        count = int(options.pop()[1])
    strange = set(options) - (_CACHE_HINTS if space == 'global' else set())
    if access is None or strange or count != len(names):
        return None
    width = np.dtype(dtype).itemsize
    if width * count > 16 or not isinstance(address, Address):
        return None
    return lambda cohort, guard: access(cohort, guard, kind, address, names, width)


def _parameter(instruction: Instruction, dtype: str) -> Step | None:
    to, address = instruction.operands
    if address.offset:
        return None

    def step(cohort, guard):
        value = cohort.execution.parameters[address.base]
        cohort.write(to, value.view(dtype), guard)

    return step


def _scatter(
    cohort: Cohort, name: str, values: np.ndarray, active: Guard, shape: tuple[int, int]
) -> None:
    """Values of the active lanes, into a register whose other lanes stay."""
    if active is None:
        cohort.registers[name] = np.ascontiguousarray(values).reshape(shape)
        return
    old = np.broadcast_to(cohort.before(name, values.dtype), shape).copy()
    old[active] = values
    cohort.registers[name] = old


def _access_global(
    cohort: Cohort,
    guard: Guard,
    kind: str,
    address: Address,
    names: tuple[str, ...],
    width: int,
) -> None:
    execution = cohort.execution
    where = cohort.read(address.base, 'i8') + address.offset
    values = [cohort.read(n, f'u{width}') for n in names] if kind == 'st' else []
    shapes = [where.shape, *(v.shape for v in values)]
    if guard is not None:
        if not guard.any():
            return
        shapes += [] if guard.all() else [guard.shape]
    shape = np.broadcast_shapes(*shapes)
    where = np.broadcast_to(where, shape)
    active = None
    if guard is not None and not guard.all():
        active = np.broadcast_to(guard, shape)
    chosen = where.ravel() if active is None else where[active]
    size = width * len(names)
    low, high = int(chosen.min()), int(chosen.max()) + size
    buffer = execution.memory.find(low, high, cohort.text)
    if (chosen % size).any():
        raise Fault(f'misaligned for {size} bytes: {cohort.text}')
    if execution.count:
        execution.sectors.add(buffer, kind, where, active, size, cohort.ctas)
    if not buffer.backed:
        if kind == 'ld':
            for name in names:
                _scatter(
                    cohort, name, np.zeros(chosen.size, f'u{width}'), active, shape
                )
        return
    carrier = _CARRIERS[size]
    index = (chosen - buffer.origin) // size
    data, state = buffer.data.view(carrier), buffer.state.view(carrier)
    if kind == 'ld':
        if not buffer.uniform:
            _check_readable(cohort, buffer, state[index].view('u1'))
        words = data[index].view(f'u{width}').reshape(-1, len(names))
        for i, name in enumerate(names):
            _scatter(cohort, name, words[:, i], active, shape)
        return
    words = np.empty((chosen.size, len(names)), f'u{width}')
    for i, value in enumerate(values):
        value = np.broadcast_to(value, shape)
        words[:, i] = value.ravel() if active is None else value[active]
    new = words.view(carrier).ravel()
    before = (state[index].view('u1').reshape(-1, size) == WRITTEN) & (
        data[index].view('u1').reshape(-1, size) != new.view('u1').reshape(-1, size)
    )
    if before.any():
        execution.counts.conflicts[cohort.text] += int(before.any(axis=1).sum())
    data[index] = new
    if _differ(data[index], new):
        _count_conflicts(cohort, active, shape, chosen, new)
    state[index] = np.full(size, WRITTEN, 'u1').view(carrier)[0]
    buffer.uniform = False
    buffer.touched['st'][index * size // 32] = True


def _check_readable(cohort: Cohort, buffer, state: np.ndarray) -> None:
    if (state == EMPTY).any():
        raise Fault(f'unwritten bytes of {buffer.name} are read: {cohort.text}')
    if (state == WRITTEN).any():
        raise Fault(
            f'{buffer.name} is read where the same launch wrote it: {cohort.text}'
        )


def _differ(stored: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether a store was overwritten by another lane of its own instruction."""
    return bool((stored.view('u1') != wanted.view('u1')).any())


def _count_conflicts(
    cohort: Cohort,
    active: Guard,
    shape: tuple[int, int],
    place: np.ndarray,
    value: np.ndarray,
) -> None:
    """Adds the places to which the active lanes stored different values."""
    whole = np.broadcast_shapes(shape, (1, cohort.shape[1]))
    lane = np.arange(whole[0] * whole[1]).reshape(whole)
    warp = (lane // WARP).ravel()
    if active is not None:
        warp = (lane // WARP)[np.broadcast_to(active, whole)]
    repeats = warp.size // place.size
    place, value = np.repeat(place, repeats), np.repeat(value, repeats)
    order = np.lexsort((warp, place))  # stable: lanes stay in their order
    place, value, warp = place[order], value[order], warp[order]
    changes = value[1:] != value[:-1]
    together = place[1:] == place[:-1]
    in_warp = together & (warp[1:] == warp[:-1])
    text, counts = cohort.text, cohort.execution.counts
    counts.lane_conflicts[text] += np.unique(place[1:][in_warp & changes]).size
    last = np.append(~in_warp, True)
    place, value = place[last], value[last]
    between = (place[1:] == place[:-1]) & (value[1:] != value[:-1])
    counts.conflicts[text] += np.unique(place[1:][between]).size


def _access_shared(
    cohort: Cohort,
    guard: Guard,
    kind: str,
    address: Address,
    names: tuple[str, ...],
    width: int,
) -> None:
    execution, shape = cohort.execution, cohort.shape
    size = width * len(names)
    where = cohort.read(address.base, 'u4').astype('i8') + address.offset
    active = np.ones((1, 1), '?') if guard is None else guard
    if not active.any():
        return
    everywhere = np.broadcast_to(where, shape)
    active = np.broadcast_to(active, shape)
    chosen = everywhere[active]
    if (chosen % size).any():
        raise Fault(f'misaligned for {size} bytes: {cohort.text}')
    if int(chosen.max()) + size > execution.shared_bytes:
        raise Fault(f'out of bounds of shared memory: {cohort.text}')
    _watch_shared(cohort, kind, everywhere[0], active[0], size)
    words = cohort.shared.data.view(f'u{width}')
    rows = np.broadcast_to(np.arange(shape[0])[:, None], shape)[active]
    index = chosen // width
    for i, name in enumerate(names):
        if kind == 'ld':
            _scatter(cohort, name, words[rows, index + i], active, shape)
        else:
            value = np.broadcast_to(cohort.read(name, f'u{width}'), shape)[active]
            words[rows, index + i] = value
            if _differ(words[rows, index + i], value):
                place = rows * words.shape[1] + index
                _count_conflicts(cohort, active, shape, place, value)


def _watch_shared(
    cohort: Cohort, kind: str, where: np.ndarray, active: np.ndarray, size: int
) -> None:
    """Races in, and wavefronts of, the first CTA, which stands for the others."""
    execution = cohort.execution
    thread = np.flatnonzero(active)
    byte = (where[active][:, None] + np.arange(size)).ravel()
    cohort.shared.owners.access(kind, byte, np.repeat(thread, size), cohort.text)
    if execution.count:
        key = cohort.at, where.tobytes(), active.tobytes()
        if key not in execution.bank_cache:
            execution.bank_cache[key] = wavefronts(where, active, size)
        real, ideal = execution.bank_cache[key]
        execution.counts.wavefronts[kind] += real * len(cohort.ctas)
        execution.counts.ideal_wavefronts[kind] += ideal * len(cohort.ctas)


def _matrix(instruction: Instruction) -> Step | None:
    """ldmatrix and stmatrix of 8 x 8 halves.

    Lane 8 k + i points to row i of matrix k; lane i holds its row i / 4, columns
    2 (i % 4) and the next.
    """
    kind = instruction.name[:2]
    address, names = instruction.operands[:: 1 if kind == 'st' else -1]
    form = {1: 'x1', 2: 'x2', 4: 'x4'}.get(len(names))
    known = ('sync', 'aligned', 'm8n8', form, 'shared', 'b16')
    if instruction.modifiers != known or instruction.guard:
        return None

    def step(cohort, guard):
        threads = cohort.shape[1]
        rows = cohort.read(address.base, 'u4') + np.uint32(address.offset)
        rows = np.broadcast_to(rows, (len(rows), threads)).reshape(len(rows), -1, WARP)
        lane = np.arange(WARP)
        if (rows[..., : 8 * len(names)] % 16).any():
            raise Fault(f'misaligned for a row of 16 bytes: {cohort.text}')
        for k, name in enumerate(names):
            words = rows[..., 8 * k + lane // 4] + (4 * (lane % 4)).astype('u4')
            cohort.registers['%matrix'] = words.reshape(len(rows), threads)
            _access_shared(cohort, guard, kind, Address('%matrix', 0), (name,), 4)

    return step


_STEPS = {
    'mov': _move,
    'shfl': _shuffle,
    'bar': _barrier,
    'trap': _trap,
    'createpolicy': _policy,
    'ld': _load_or_store,
    'st': _load_or_store,
    'ldmatrix': _matrix,
    'stmatrix': _matrix,
}
