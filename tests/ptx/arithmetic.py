"""What PTX's arithmetic computes, as functions of NumPy arrays.

Integers wrap, fp32 rounds to nearest, fma rounds once. `div.full`, `ex2.approx`,
`rcp.approx` and `rsqrt.approx`, which hardware may compute with an error of 1 or 2 ulp,
are rounded correctly here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.ptx.parse import Unsupported

# NumPy's type of each of PTX's; bfloat16 travels as its bits.
TYPES = {
    'pred': '?',
    **{f'b{8 * size}': f'u{size}' for size in (1, 2, 4, 8)},
    **{f'u{8 * size}': f'u{size}' for size in (1, 2, 4, 8)},
    **{f's{8 * size}': f'i{size}' for size in (1, 2, 4, 8)},
    **{f'f{8 * size}': f'f{size}' for size in (2, 4, 8)},
    'bf16': 'u2',
    'bf16x2': 'u4',
    'f16x2': 'u4',
}
_HALVES = {'bf16x2': 'bf16', 'f16x2': 'f16'}
_SIGNED = {f'i{size}' for size in (1, 2, 4, 8)}
_UNSIGNED = {f'u{size}' for size in (1, 2, 4, 8)}


@dataclass(frozen=True)
class Operation:
    """NumPy types of the sources, and the function from them to the result."""

    sources: tuple[str, ...]
    function: Callable[..., np.ndarray]


def operation(name: str, modifiers: tuple[str, ...]) -> Operation:
    """The operation of an opcode, such as 'fma', ('rn', 'f32')."""
    make = _OPERATIONS.get(name)
    kind = modifiers[-1] if modifiers else ''
    made = None
    if make is not None and kind in TYPES:
        made = make(modifiers[:-1], kind, TYPES[kind])
    if made is None:
        raise Unsupported('.'.join((name, *modifiers)))
    return made


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Bits of fp32 x rounded to bfloat16, to nearest even."""
    bits = np.ascontiguousarray(x, 'f4').view('u4')
    rounded = (
        bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    ) >> 16
    return np.where(np.isnan(x), 0x7FFF, rounded).astype('u2')


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """fp32 values of bfloat16 bits."""
    return (bits.astype('u4') << np.uint32(16)).view('f4')


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """fp32 a * b + c, rounded once."""
    product = a.astype('f8') * b  # exact: 48 bits
    total = product + c
    # The sum is rounded to 53 bits. To round that to fp32 differs from rounding once
    # only where it lies halfway between two fp32 values, or among the subnormals; there
    # the lost part of the sum decides, for which an odd last bit stands.
    doubtful = (total.view('i8') & 0x1FFFFFFF == 0x10000000) | (np.abs(total) < 2e-38)
    if doubtful.any():
        c = c.astype('f8')
        part = total - product
        lost = (product - (total - part)) + (c - part)
        away = (lost > 0) == (total > 0)
        bits = total.view('i8')
        even = bits & 1 == 0
        odd = np.where(away, bits + 1, bits - 1).view('f8')
        total = np.where(doubtful & (lost != 0) & even & (total != 0), odd, total)
    return total.astype('f4')


def _is_float(kind: str) -> bool:
    return kind in ('f32', 'f64')


def _elementwise(function: Callable, count: int, floats: tuple = ((), ('rn',))):
    """An operation on integers without options, or on floats with one of `floats`."""

    def make(options, kind, dtype):
        if kind in ('pred', 'f16', 'bf16', *_HALVES):
            return None
        if options not in (floats if _is_float(kind) else ((),)):
            return None
        return Operation((dtype,) * count, function)

    return make


def _logical(function: Callable, count: int):
    def make(options, kind, dtype):
        if options or kind[0] not in 'bp' or kind == 'bf16':
            return None
        return Operation((dtype,) * count, function)

    return make


def _multiply(options, kind, dtype):
    if _is_float(kind):
        return (
            Operation((dtype,) * 2, np.multiply) if options in ((), ('rn',)) else None
        )
    if dtype not in _SIGNED | _UNSIGNED or kind in _HALVES:
        return None
    wide = f'{dtype[0]}{2 * int(dtype[1])}'
    bits = 8 * int(dtype[1])
    if options == ('lo',):
        return Operation((dtype,) * 2, np.multiply)
    if options == ('wide',) and bits < 64:
        return Operation((dtype,) * 2, lambda a, b: a.astype(wide) * b.astype(wide))
    if options == ('hi',) and bits < 64:
        return Operation(
            (dtype,) * 2,
            lambda a, b: (a.astype(wide) * b.astype(wide) >> bits).astype(dtype),
        )
    return None


def _multiply_add(options, kind, dtype):
    product = None if _is_float(kind) else _multiply(options, kind, dtype)
    if product is None:
        return None
    last = f'{dtype[0]}{2 * int(dtype[1])}' if options == ('wide',) else dtype
    return Operation(
        (*product.sources, last), lambda a, b, c: product.function(a, b) + c
    )


def _fused_multiply_add(options, kind, dtype):
    return Operation((dtype,) * 3, fma) if (options, kind) == (('rn',), 'f32') else None


def _integer_quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rounded to zero; what a GPU gives for a division by zero is all ones."""
    quotient = np.floor_divide(a, np.where(b == 0, 1, b))
    inexact = quotient * b != a
    quotient = quotient + ((quotient < 0) & inexact).astype(a.dtype)
    return np.where(b == 0, np.array(-1).astype(a.dtype), quotient)


def _divide(options, kind, dtype):
    if _is_float(kind):
        known = ('rn',), ('full',), ('approx',)
        return Operation((dtype,) * 2, np.divide) if options in known else None
    if options or dtype not in _SIGNED | _UNSIGNED:
        return None
    return Operation((dtype,) * 2, _integer_quotient)


def _remainder(options, kind, dtype):
    if options or dtype not in _SIGNED | _UNSIGNED or kind[0] not in 'su':
        return None
    return Operation((dtype,) * 2, lambda a, b: a - _integer_quotient(a, b) * b)


def _extreme(ignore_nan: Callable, keep_nan: Callable):
    def make(options, kind, dtype):
        if _is_float(kind):
            functions = {(): ignore_nan, ('NaN',): keep_nan}
        else:
            functions = {(): keep_nan} if kind[0] in 'su' else {}
        if options not in functions:
            return None
        return Operation((dtype,) * 2, functions[options])

    return make


def _shift(function: Callable):
    """Counts beyond the width shift everything out."""

    def make(options, kind, dtype):
        if options or dtype not in _SIGNED | _UNSIGNED:
            return None
        bits = 8 * int(dtype[1])

        def shift(a, count):
            inside = function(a, np.minimum(count, bits - 1).astype(dtype))
            if (count < bits).all():
                return inside
            sign = a >> np.array(bits - 1, dtype) if dtype in _SIGNED else a * 0
            return np.where(count < bits, inside, sign)

        return Operation((dtype, 'u4'), shift)

    return make


def _funnel_shift(options, kind, dtype):
    """shf.l.wrap: the upper half of b:a, shifted left by the count modulo 32."""
    if options != ('l', 'wrap') or kind != 'b32':
        return None

    def shift(a, b, count):
        both = a.astype('u8') | (b.astype('u8') << np.uint64(32))
        return ((both << (count & np.uint32(31)).astype('u8')) >> np.uint64(32)).astype(
            dtype
        )

    return Operation((dtype, dtype, 'u4'), shift)


def _extract(options, kind, dtype):
    """bfe: `length` bits from `start`."""
    if options or kind not in ('u32', 's32'):
        return None

    def extract(a, start, length):
        start, length = start & np.uint32(255), length & np.uint32(255)
        if ((start + length > 32) | (length == 0)).any():
            raise Unsupported(f'bfe.{kind} beyond 32 bits or of none')
        left = (np.uint32(32) - start - length).astype(dtype)
        return (a << left) >> (np.uint32(32) - length).astype(dtype)

    return Operation((dtype, 'u4', 'u4'), extract)


def _permute(options, kind, dtype):
    """prmt: four bytes out of the eight of a and b."""
    if options or kind != 'b32':
        return None

    def permute(a, b, selector):
        both = a.astype('u8') | (b.astype('u8') << np.uint64(32))
        result = np.zeros(1, 'u4')
        for i in range(4):
            pick = (selector >> np.uint32(4 * i)).astype('u8')
            byte = (both >> ((pick & np.uint64(7)) * np.uint64(8))) & np.uint64(255)
            sign = np.where(byte >> np.uint64(7) == 1, np.uint64(255), np.uint64(0))
            byte = np.where(pick & np.uint64(8) == 0, byte, sign)
            result = result | (byte << np.uint64(8 * i)).astype('u4')
        return result

    return Operation((dtype,) * 3, permute)


def _select(options, kind, dtype):
    if options or kind in _HALVES:
        return None
    return Operation((dtype, dtype, '?'), lambda a, b, p: np.where(p, a, b))


_COMPARISONS = {
    'eq': np.equal,
    'ne': np.not_equal,
    'lt': np.less,
    'le': np.less_equal,
    'gt': np.greater,
    'ge': np.greater_equal,
}


def _compare(options, kind, dtype):
    """setp; a comparison with a NaN is false, with one of the unordered ones true."""
    if len(options) != 1 or kind in _HALVES or kind == 'pred':
        return None
    (test,) = options
    load = from_bf16 if kind == 'bf16' else np.asarray
    if kind[0] == 'f' or kind == 'bf16':
        unordered = test not in _COMPARISONS and test.endswith('u')
        compare = _COMPARISONS.get(test.removesuffix('u') if unordered else test)
        if compare is None:
            return None

        def ordered(a, b):
            a, b = load(a), load(b)
            nan = np.isnan(a) | np.isnan(b)
            return compare(a, b) | nan if unordered else compare(a, b) & ~nan

        return Operation((dtype, dtype), ordered)
    if test in ('lo', 'ls', 'hi', 'hs'):
        test = {'lo': 'lt', 'ls': 'le', 'hi': 'gt', 'hs': 'ge'}[test]
        dtype = dtype.replace('i', 'u')
    compare = _COMPARISONS.get(test)
    return None if compare is None else Operation((dtype, dtype), compare)


def _convert(options, kind, dtype):
    """cvt: `options` end with the type of the source."""
    if not options or options[-1] not in TYPES:
        return None
    *rounding, to, source = (*options, kind)
    rounding = tuple(rounding)
    src, dst = TYPES[source], TYPES[to]
    halves = {
        'bf16': to_bf16,
        'f16': lambda x: x.astype('f2').view('u2'),
    }
    if source == 'f32' and rounding == ('rn',):
        if to in halves:
            return Operation(('f4',), halves[to])
        if to in _HALVES:
            half = halves[_HALVES[to]]
            return Operation(
                ('f4', 'f4'),
                lambda high, low: (
                    half(low).astype('u4') | half(high).astype('u4') << np.uint32(16)
                ),
            )
    if (to, source, rounding) == ('f32', 'bf16', ()):
        return Operation(('u2',), from_bf16)
    if 'bf16' in (to, source) or to in _HALVES or source in _HALVES:
        return None
    known = {
        ('i', 'i'): ((),),
        ('i', 'f'): (('rzi',),),
        ('f', 'i'): (('rn',),),
        ('f', 'f'): ((),) if int(dst[1]) >= int(src[1]) else (('rn',),),
    }
    number = {'u': 'i', 'i': 'i', 'f': 'f'}
    if rounding not in known[number[dst[0]], number[src[0]]]:
        return None
    if rounding == ('rzi',):
        limits = np.iinfo(dst)

        def truncate(x):
            x = np.where(np.isnan(x), 0, np.trunc(x.astype('f8')))
            # 2**63 has no double below it that a clip could keep.
            top = x >= float(limits.max)
            inside = np.clip(x, float(limits.min), None)
            return np.where(top, limits.max, np.where(top, 0, inside).astype(dst))

        return Operation((src,), lambda x: truncate(x).astype(dst))
    return Operation((src,), lambda x: x.astype(dst))


def _approximate(function: Callable, known: tuple[tuple[str, ...], ...]):
    def make(options, kind, dtype):
        if kind != 'f32' or options not in known:
            return None
        return Operation((dtype,), lambda x: function(x.astype('f8')).astype('f4'))

    return make


_OPERATIONS = {
    'add': _elementwise(np.add, 2),
    'sub': _elementwise(np.subtract, 2),
    'neg': _elementwise(np.negative, 1, ((),)),
    'abs': _elementwise(np.abs, 1, ((),)),
    'mul': _multiply,
    'mad': _multiply_add,
    'fma': _fused_multiply_add,
    'div': _divide,
    'rem': _remainder,
    'min': _extreme(np.fmin, np.minimum),
    'max': _extreme(np.fmax, np.maximum),
    'and': _logical(np.bitwise_and, 2),
    'or': _logical(np.bitwise_or, 2),
    'xor': _logical(np.bitwise_xor, 2),
    'not': _logical(np.bitwise_not, 1),
    'shl': _shift(np.left_shift),
    'shr': _shift(np.right_shift),
    'shf': _funnel_shift,
    'bfe': _extract,
    'prmt': _permute,
    'selp': _select,
    'setp': _compare,
    'cvt': _convert,
    'sqrt': _approximate(np.sqrt, (('rn',), ('approx',))),
    'rcp': _approximate(lambda x: 1 / x, (('rn',), ('approx',))),
    'rsqrt': _approximate(lambda x: 1 / np.sqrt(x), (('approx',),)),
    'ex2': _approximate(np.exp2, (('approx',),)),
    'lg2': _approximate(np.log2, (('approx',),)),
}
