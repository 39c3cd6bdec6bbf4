"""What a launch did: instructions by class, sectors, wavefronts, barriers."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from tests.ptx.memory import SECTOR, Buffer
from tests.ptx.parse import Unsupported

WARP = 32
BANKS = 32
_CLASSES = {
    'move': ('mov',),
    'integer': (
        *('and', 'or', 'xor', 'not', 'shl', 'shr', 'shf', 'bfe', 'prmt', 'selp'),
        *('add', 'sub', 'mul', 'mad', 'min', 'max', 'neg', 'abs', 'div', 'rem', 'setp'),
    ),
    'special': ('sqrt', 'rcp', 'rsqrt', 'ex2', 'lg2'),
    'convert': ('cvt',),
    'shuffle': ('shfl',),
    'barrier': ('bar', 'barrier'),
    'control': ('bra', 'ret', 'trap'),
    'atomic': ('atom', 'red'),
    'shared': ('ldmatrix', 'stmatrix'),
    'policy': ('createpolicy',),
}
_FLOAT = ('add', 'sub', 'mul', 'fma', 'neg', 'abs', 'min', 'max')
_CLASS_OF = {name: kind for kind, names in _CLASSES.items() for name in names}


def instruction_class(opcode: str) -> str:
    """'float', 'integer', 'special', 'convert', 'shuffle', 'global', 'shared', …"""
    name, *modifiers = opcode.split('.')
    if name in ('ld', 'st'):
        return modifiers[0]
    if name in ('div', 'rem'):
        return 'special' if 'f32' in modifiers else 'divide'
    if modifiers and modifiers[-1] in ('f32', 'f64') and name in _FLOAT:
        return 'float'
    if name not in _CLASS_OF:
        raise Unsupported(f'{opcode} belongs to no class')
    return _CLASS_OF[name]


@dataclass
class Traffic:
    """Loads or stores of one argument.

    `requests` are warp instructions with an active lane, `sectors` the 32-byte sectors
    they ask for, `lane_bytes` what active lanes move. `per_cta` counts a sector once in
    each CTA (a perfect L1), `distinct` once in the launch.
    """

    requests: int = 0
    sectors: int = 0
    lane_bytes: int = 0
    per_cta: int = 0
    distinct: int = 0


@dataclass
class Counts:
    """One launch. `instructions` counts warps: one of 128 threads adds 4 to its opcode.

    `traffic` is by (argument, 'ld' or 'st'); an argument that stands for several has
    the first one's name. `wavefronts` of shared memory are by 'ld' or 'st', as they are
    and as they would be without bank conflicts. `conflicts` are instructions by which
    warps stored different values to one place, or stored over another value of the same
    launch, and how often: the order of warps and CTAs decides. `lane_conflicts` are
    those where lanes of one warp did: the hardware decides.
    """

    kernel: str
    grid: tuple[int, int, int]
    ctas: int
    warps: int
    instructions: Counter = field(default_factory=Counter)
    traffic: dict[tuple[str, str], Traffic] = field(
        default_factory=lambda: defaultdict(Traffic)
    )
    wavefronts: dict[str, int] = field(default_factory=Counter)
    ideal_wavefronts: dict[str, int] = field(default_factory=Counter)
    barriers: int = 0
    conflicts: Counter = field(default_factory=Counter)
    lane_conflicts: Counter = field(default_factory=Counter)

    def classes(self) -> Counter:
        """Warp instructions by class."""
        classes: Counter = Counter()
        for opcode, times in self.instructions.items():
            classes[instruction_class(opcode)] += times
        return classes


class SectorCounter:
    """Sectors of global memory that the CTAs of one cohort touch."""

    def __init__(self, counts: Counts):
        self.counts = counts
        self._seen: dict[tuple[Buffer, str], list[np.ndarray]] = defaultdict(list)

    def add(
        self,
        buffer: Buffer,
        kind: str,
        address: np.ndarray,
        active: np.ndarray | None,
        size: int,
        ctas: np.ndarray,
    ) -> None:
        """One instruction: addresses [CTAs or 1, threads or 1] of `size` bytes."""
        warps = self.counts.warps
        lanes = WARP if address.shape[1] > 1 else 1
        # A value that is the same in all CTAs, or in all threads, stands for each.
        times = (len(ctas) if len(address) == 1 else 1) * (1 if lanes > 1 else warps)
        sector = (address - buffer.origin) // SECTOR
        if active is not None:
            sector = np.where(active, sector, -1)
        sector = np.sort(sector.reshape(len(sector), -1, lanes), axis=-1)
        first = sector >= 0
        first[..., 1:] &= sector[..., 1:] != sector[..., :-1]
        traffic = self.counts.traffic[buffer.name, kind]
        traffic.requests += int((sector[..., -1] >= 0).sum()) * times
        traffic.sectors += int(first.sum()) * times
        moving = address.size if active is None else int(active.sum())
        threads = 1 if lanes > 1 else WARP
        traffic.lane_bytes += moving * threads * size * times
        rows = ctas if len(address) > 1 else ctas[:1]
        keys = (rows[:, None, None] * buffer.sectors + sector)[first]
        if len(address) == 1 and len(ctas) > 1:
            keys = (ctas[:, None] * buffer.sectors + sector[first]).ravel()
        self._seen[buffer, kind].append(np.unique(keys))

    def finish(self) -> None:
        """Adds the sectors that count once a CTA, and once a launch."""
        for (buffer, kind), keys in self._seen.items():
            unique = np.unique(np.concatenate(keys))
            self.counts.traffic[buffer.name, kind].per_cta += unique.size
            buffer.touched[kind][unique % buffer.sectors] = True
        self._seen.clear()


def wavefronts(address: np.ndarray, active: np.ndarray, size: int) -> tuple[int, int]:
    """Passes of shared memory for one instruction of one CTA: real, and ideal.

    A pass serves 32 banks of 4 bytes, one word of each; of 8 or 16 bytes a lane a half
    or a quarter of a warp.
    """
    words = max(1, size // 4)
    together = WARP // words
    word = address.reshape(-1, together)[..., None] // 4 + np.arange(words)
    active = active.reshape(-1, together)
    real = 0
    for row, live in zip(word, active, strict=True):
        used = np.unique(row[live])
        if used.size:
            real += int(np.bincount(used % BANKS).max())
    return real, int(active.any(axis=1).sum())
