"""The sizes that every launch is derived from: the only place of such numbers.

BASIS says what they rest on: 'arithmetic', 'modelled: …' or 'measured: …'.
"""

from dataclasses import dataclass

BASIS = 'arithmetic'


@dataclass(frozen=True)
class Limits:
    """The table; a field is elements, bytes or a count, as its comment says.

    Elements of a tile that stays in registers: 32 a thread in 16 warps (twice as many
    spill). Bytes in flight of a split tile: 64 a thread in 8 warps. Two such programs
    fit on an SM.
    """

    # Largest tile kept on chip, forward and backward, in elements.
    on_chip_fwd: int = 16384
    on_chip_bwd: int = 16384
    # Up to here a tile stays on chip even where few programs leave SMs idle.
    on_chip_small: int = 8192
    # Channels-last programs take more channels until their tile has so many elements.
    on_chip_min: int = 2048
    # A tile of the split regime, forward in bytes, backward in elements.
    split_fwd_bytes: int = 16384
    split_bwd: int = 4096
    # Programs that run on an SM at the same time.
    programs_per_sm: int = 2
    # Bytes of adjacent channels that a channels-last program reads.
    piece_bytes: int = 128
    # Partials of all its groups that a program of 8 warps merges at a time; they are
    # held in registers, so one of fewer warps merges fewer.
    merge: int = 2048
    # Bytes of maps that an L2 of 50 MB, in two halves, keeps.
    l2_bytes: int = 30_000_000


LIMITS = Limits()
