"""Global and shared memory, and every rule that an access may break."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
import torch

EMPTY, READY, WRITTEN = 0, 1, 2  # states of a byte; WRITTEN: by the launch that runs
SECTOR = 32
_ALIGNMENT = 256  # of what CUDA allocates
_GUARD = 4096  # bytes around a buffer that belong to no buffer


class Fault(Exception):
    """What no kernel may do: out of bounds, misaligned, unwritten, a race."""


@dataclass(frozen=True)
class Unbacked:
    """A pointer to `nbytes` bytes that read as zero and keep nothing: for counts."""

    nbytes: int


def dense_bytes(tensor: torch.Tensor) -> np.ndarray:
    """The bytes from a tensor's first element to its last, shared with it."""
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.storage_offset() * tensor.element_size()
    stop = start + (last + 1) * tensor.element_size() * (tensor.numel() > 0)
    everything = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    return everything[start:stop].numpy()


class Buffer:
    """The bytes of one argument in global memory, and the state of each.

    Its copy of the bytes starts at a sector, so that wide accesses are views of it;
    `fetch` and `store` exchange them with the argument around a launch.
    """

    def __init__(self, address: int, outside: np.ndarray | int, ready: bool):
        self.name = ''
        self.backed = not isinstance(outside, int)
        self.nbytes = outside.size if self.backed else outside
        self.start, self.stop = address, address + self.nbytes
        self.origin = address // SECTOR * SECTOR
        self.sectors = -(-(self.stop - self.origin) // SECTOR)
        self.touched = {kind: np.zeros(self.sectors, '?') for kind in ('ld', 'st')}
        self.uniform = True  # every byte is READY
        if self.backed:
            self._outside = outside
            self._inside = slice(self.start - self.origin, self.stop - self.origin)
            self.data = np.zeros(self.sectors * SECTOR, 'u1')
            self.state = np.full(self.data.size, READY if ready else EMPTY, 'u1')
            self.uniform = ready

    def fetch(self) -> None:
        """Takes over the argument's bytes: what earlier launches wrote is there."""
        for touched in self.touched.values():
            touched[:] = False
        if self.backed:
            self.data[self._inside] = self._outside
            self.state[self.state == WRITTEN] = READY
            self.uniform = bool((self.state[self._inside] == READY).all())

    def store(self) -> None:
        """Gives the argument the bytes after a launch."""
        if self.backed and self.touched['st'].any():
            self._outside[:] = self.data[self._inside]


class GlobalMemory:
    """Buffers at addresses of a GPU's alignment with guard bands between them."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self._starts: list[int] = []
        self._known: dict[tuple[int, int], Buffer] = {}
        self._alive: list[torch.Tensor] = []
        self._next = 0x7F40_0000_0000

    def add(self, argument: torch.Tensor | Unbacked, ready: bool = True) -> Buffer:
        """The buffer of a tensor, the same for equal bytes; `ready` if initialised."""
        if isinstance(argument, Unbacked):
            return self._new(argument.nbytes, 0, ready)
        place = argument.data_ptr(), dense_bytes(argument).size
        if place not in self._known:
            self._alive.append(argument)
            lead = argument.storage_offset() * argument.element_size() % _ALIGNMENT
            self._known[place] = self._new(dense_bytes(argument), lead, ready)
        return self._known[place]

    def _new(self, outside: np.ndarray | int, lead: int, ready: bool) -> Buffer:
        buffer = Buffer(self._next + lead, outside, ready)
        self.buffers.append(buffer)
        self._starts.append(buffer.start)
        self._next = -(-(buffer.stop + _GUARD) // _ALIGNMENT) * _ALIGNMENT
        return buffer

    def find(self, low: int, high: int, text: str) -> Buffer:
        """The buffer that holds the bytes [low, high), or a Fault."""
        index = bisect.bisect_right(self._starts, low) - 1
        buffer = self.buffers[max(0, index)] if self.buffers else None
        if buffer is None or index < 0 or high > buffer.stop:
            where = 'no buffer'
            if buffer is not None:
                where = (
                    f'[{low - buffer.start}, {high - buffer.start}) of '
                    f'{buffer.name}, which has {buffer.nbytes} bytes'
                )
            raise Fault(f'out of bounds: {text}: {where}')
        return buffer


@dataclass
class SharedMemory:
    """Shared memory of some CTAs, [CTAs, bytes], and who touched the first one's."""

    data: np.ndarray
    owners: Owners

    @classmethod
    def new(cls, ctas: int, nbytes: int) -> SharedMemory:
        """Bytes that no value should hold: NaN in each type."""
        padded = -(-nbytes // 16) * 16
        return cls(np.full((ctas, padded), 0xFF, 'u1'), Owners.new(nbytes))

    def part(self, rows: np.ndarray) -> SharedMemory:
        """A copy for some of the CTAs, all of which have the same history."""
        return SharedMemory(self.data[rows], self.owners.copy())


@dataclass
class Owners:
    """Who touched each byte of one CTA's shared memory since the last barriers.

    `writer` is the last thread to write a byte, ever. Of the others there are two sets:
    since a barrier of the CTA, and since one of the CTA or of the warp.
    """

    writer: np.ndarray
    cta: Epoch
    warp: Epoch

    @classmethod
    def new(cls, nbytes: int) -> Owners:
        return cls(np.full(nbytes, -1), Epoch.new(nbytes), Epoch.new(nbytes))

    def copy(self) -> Owners:
        return Owners(self.writer.copy(), self.cta.copy(), self.warp.copy())

    def barrier(self, of_cta: bool) -> None:
        self.warp.clear()
        if of_cta:
            self.cta.clear()

    def access(self, kind: str, byte: np.ndarray, thread: np.ndarray, text: str):
        """A Fault unless a barrier stands between each two threads at one byte."""
        writer = self.writer[byte]
        if kind == 'ld' and (writer < 0).any():
            raise Fault(f'unwritten shared memory is read: {text}')
        other_warp = writer >> 5 != thread >> 5
        race = self.cta.written[byte] & other_warp
        race |= self.warp.written[byte] & ~other_warp & (writer != thread)
        if kind == 'st':
            race |= self.cta.low[byte] >> 5 < thread >> 5
            race |= self.cta.high[byte] >> 5 > thread >> 5
            race |= self.warp.read_by_another(byte, thread)
        if race.any():
            raise Fault(f'race in shared memory: {text}')
        for epoch in (self.cta, self.warp):
            if kind == 'ld':
                np.minimum.at(epoch.low, byte, thread)
                np.maximum.at(epoch.high, byte, thread)
            else:
                epoch.written[byte] = True
        if kind == 'st':
            self.writer[byte] = thread


_NOBODY = 1 << 20


@dataclass
class Epoch:
    """The time since a barrier: bytes written, lowest and highest thread that read."""

    written: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def new(cls, nbytes: int) -> Epoch:
        return cls(np.zeros(nbytes, '?'), np.full(nbytes, _NOBODY), np.full(nbytes, -1))

    def copy(self) -> Epoch:
        return Epoch(self.written.copy(), self.low.copy(), self.high.copy())

    def clear(self) -> None:
        self.written[:], self.low[:], self.high[:] = False, _NOBODY, -1

    def read_by_another(self, byte: np.ndarray, thread: np.ndarray) -> np.ndarray:
        """Whether another thread of the same warp read the byte."""
        warp = thread >> 5
        low, high = self.low[byte], self.high[byte]
        return ((low < thread) & (low >> 5 == warp)) | (
            (high > thread) & (high >> 5 == warp)
        )
