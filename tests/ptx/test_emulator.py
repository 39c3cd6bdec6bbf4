"""The emulator itself: what it computes and counts, and what it does not let pass."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ptx.arithmetic import fma, operation, to_bf16
from tests.ptx.compile import Compiled
from tests.ptx.counts import Counts, instruction_class
from tests.ptx.launch import launch
from tests.ptx.memory import Fault, GlobalMemory, Unbacked
from tests.ptx.parse import Unsupported, parse

SHARED = 512
# %rd1 is this thread's element of the argument x, %rd2 of y, %r1 the thread.
KERNEL = """
.version 8.4
.target sm_90a
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u64 .ptr .global .align 1 kernel_param_1
)
.reqntid 64
{{
	.reg .b32 	%r<9>;
	ld.param.b64 	%rd8, [kernel_param_0];
	ld.param.b64 	%rd9, [kernel_param_1];
	mov.u32 	%r1, %tid.x;
	mov.u32 	%r2, %ctaid.x;
	mad.lo.s32 	%r3, %r2, 64, %r1;
	mad.wide.u32 	%rd1, %r3, 4, %rd8;
	mad.wide.u32 	%rd2, %r3, 4, %rd9;
	shl.b32 	%r4, %r1, 2;
	{body}
	ret;
}}
"""
COPY = 'ld.global.b32 {%r5}, [%rd1]; st.global.b32 [%rd2], {%r5};'


def emulate(body: str, grid: int = 1, x=None, y=None, **options):
    """Counts and y of a kernel of 64 threads; x counts up."""
    x = torch.arange(64.0 * grid) if x is None else x
    y = torch.zeros(64 * grid) if y is None else y
    text = KERNEL.format(body=body.replace('; ', ';\n\t'))
    compiled = Compiled(text, b'', ('x', 'y'), SHARED)
    return launch(compiled, (grid,), (x, y), **options), y


def test_a_copy():
    counts, y = emulate(COPY, grid=3, order=[2, 0, 1])
    assert y.tolist() == list(range(192))
    assert counts.instructions['ld.global.b32'] == 3 * 2
    assert counts.classes()['param'] == 2 * 3 * 2
    loads = counts.traffic['x', 'ld']
    assert (loads.requests, loads.sectors, loads.lane_bytes) == (6, 24, 768)
    assert (loads.per_cta, loads.distinct) == (24, 24)
    assert not counts.conflicts


@pytest.mark.parametrize(
    ('address', 'sectors', 'per_cta'),
    [
        ('%rd8', 4, 2),  # one place for all
        ('%rd1', 16, 16),
        ('%rd1+4', 20, 18),  # each warp begins and ends amid a sector
        ('%rd4', 4, 2),  # all of a CTA in one place
    ],
)
def test_sectors(address, sectors, per_cta):
    x = torch.zeros(256)
    counts, _ = emulate(
        f'mul.wide.u32 %rd3, %r2, 256; add.s64 %rd4, %rd8, %rd3; '
        f'ld.global.b32 {{%r5}}, [{address}];',
        grid=2,
        x=x,
    )
    found = counts.traffic['x', 'ld']
    assert (found.sectors, found.per_cta) == (sectors, per_cta)


@pytest.mark.parametrize(('stride', 'conflicts'), [(4, 1), (8, 2), (0, 1)])
def test_bank_conflicts(stride, conflicts):
    counts, _ = emulate(f'mul.lo.s32 %r5, %r1, {stride}; st.shared.b32 [%r5], %r2;')
    assert counts.wavefronts['st'] == 2 * conflicts
    assert counts.ideal_wavefronts['st'] == 2


def test_threads_that_part_meet_again():
    """Each thread goes round its own number of times, then all shuffle."""
    counts, y = emulate(
        """mov.b32 %r5, 0;
        and.b32 %r6, %r1, 3;
        setp.eq.b32 %p1, %r6, 0;
        @%p1 bra $END;
$AGAIN:
        add.s32 %r5, %r5, 5;
        sub.s32 %r6, %r6, 1;
        setp.gt.s32 %p2, %r6, 0;
        @%p2 bra $AGAIN;
$END:
        shfl.sync.bfly.b32 %r7, %r5, 1, 31, -1;
        cvt.rn.f32.s32 %r7, %r7;
        st.global.b32 [%rd2], {%r7};"""
    )
    assert y.tolist() == [5, 0, 15, 10] * 16
    assert counts.instructions['shfl.sync.bfly.b32'] == 2
    assert counts.instructions['sub.s32'] == 3 * 2


FAULTS = {
    'out of bounds': 'ld.global.b32 {%r5}, [%rd1+4];',
    'out of bounds: ': 'ld.global.b32 {%r5}, [%rd1+-4];',
    'misaligned for 4': 'add.s64 %rd3, %rd8, 2; ld.global.b32 {%r5}, [%rd3];',
    'misaligned for 8': 'ld.global.v2.b32 {%r5, %r6}, [%rd8+4];',
    'is read where the same launch wrote': COPY + ' ld.global.b32 {%r5}, [%rd2];',
    'unwritten shared memory': 'ld.shared.b32 %r5, [%r4];',
    'bounds of shared memory': 'st.shared.b32 [%r4+260], %r5;',
    'race in shared memory': (
        'st.shared.b32 [%r4], %r1; xor.b32 %r5, %r4, 128; ld.shared.b32 %r6, [%r5];'
    ),
    'race in shared memory: .*st': (
        'st.shared.b32 [%r4], %r1; bar.sync 0; xor.b32 %r5, %r4, 4; '
        'ld.shared.b32 %r6, [%r5]; st.shared.b32 [%r4], %r6;'
    ),
    'trap': 'trap;',
}


@pytest.mark.parametrize('message', FAULTS)
def test_faults(message):
    with pytest.raises(Fault, match=message):
        emulate(FAULTS[message])


def test_barriers_of_cta_and_warp():
    exchange = (
        'st.shared.b32 [%r4], %r1; {barrier}; xor.b32 %r5, %r4, {distance}; '
        'ld.shared.b32 %r6, [%r5];'
    )
    for barrier, distance in (('bar.sync 0', 128), ('bar.warp.sync -1', 64)):
        emulate(exchange.format(barrier=barrier, distance=distance))
    with pytest.raises(Fault, match='race'):
        emulate(exchange.format(barrier='bar.warp.sync -1', distance=128))


def test_what_nobody_wrote_is_not_read():
    memory, x = GlobalMemory(), torch.zeros(64)
    memory.add(x, ready=False)
    with pytest.raises(Fault, match='unwritten bytes of x'):
        emulate(COPY, x=x, memory=memory)
    memory, y = GlobalMemory(), torch.zeros(64)
    memory.add(y, ready=False)
    emulate(COPY, y=y, memory=memory)
    emulate(COPY, x=y, memory=memory)


def test_conflicting_stores_are_counted():
    one = 'st.global.b32 [%rd9], {%r1};'
    counts, _ = emulate(one)
    assert sum(counts.conflicts.values()) == 1  # two warps
    assert sum(counts.lane_conflicts.values()) == 1
    counts, _ = emulate(f'setp.lt.u32 %p1, %r1, 32; @%p1 {one}')
    assert sum(counts.conflicts.values()) == 0
    assert sum(counts.lane_conflicts.values()) == 1
    counts, _ = emulate('st.global.b32 [%rd9], {%r2};', grid=2)
    assert sum(counts.conflicts.values()) == 1  # two CTAs
    counts, _ = emulate('st.global.b32 [%rd9], {7};', grid=2)
    assert sum(counts.conflicts.values()) == 0


UNKNOWN = (
    'sin.approx.f32 %r5, %r1;',
    'add.rz.f32 %r5, %r1, %r1;',
    'fma.rn.ftz.f32 %r5, %r1, %r1, %r1;',
    'ld.volatile.global.b32 %r5, [%rd1];',
    'ld.global.mystery.b32 {%r5}, [%rd1];',
    'ld.local.b32 %r5, [%rd1];',
    'add.s32 %r5, %r6, 1;',
    'cp.async.cg.shared.global [%r4], [%rd1], 16;',
    'shfl.sync.bfly.b32 %r5, %r1, 1, 15, -1;',
    'shfl.sync.bfly.b32 %r5, %r1, 1, 31, 255;',
    'bar.sync 1;',
    'setp.lt.and.s32 %p1, %r1, 3, %p2;',
    'cvt.rz.f32.s32 %r5, %r1;',
    'mov.u32 %r5, %smid;',
    'mov.u64 %rd5, other_memory;',
    'bra $NOWHERE;',
    'call (%r5), f, (%r1);',
    'add.s32 %r5, %rd1, 1;',
    'setp.lt.u32 %p1, %r1, 3; @%p1 bar.sync 0;',
    'setp.lt.u32 %p1, %r1, 3; @%p1 ret;',
)


@pytest.mark.parametrize('body', UNKNOWN)
def test_what_is_not_known_is_an_error(body):
    with pytest.raises(Unsupported):
        emulate(body)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('.reqntid 64', '.maxntid 64'),
        ('.reqntid 64', '.reqntid 64\n.explicitcluster'),
        ('.version', '.func f() {{}}\n.version'),
        ('ret;', 'ret'),
        ('\tret;', '\t.shared .b32 s;\n\tret;'),
    ],
)
def test_a_module_that_is_not_known_is_an_error(old, new):
    text = KERNEL.format(body='')
    assert old in text
    with pytest.raises(Unsupported):
        parse(text.replace(old, new, 1))


def test_unbacked_arguments_count_and_keep_nothing():
    text = KERNEL.format(body=COPY.replace('; ', ';\n'))
    compiled = Compiled(text, b'', ('x', 'y'), SHARED)
    whole = launch(compiled, (3,), (torch.zeros(192), torch.zeros(192)))
    ghosts = launch(compiled, (3,), (Unbacked(768), Unbacked(768)))
    assert ghosts.traffic == whole.traffic
    assert ghosts.instructions == whole.instructions
    with pytest.raises(Fault, match='out of bounds'):
        launch(compiled, (3,), (Unbacked(764), Unbacked(768)))


def test_every_opcode_has_a_class():
    assert instruction_class('fma.rn.f32') == 'float'
    assert instruction_class('add.s32') == 'integer'
    assert instruction_class('div.full.f32') == 'special'
    assert instruction_class('ld.global.v4.b32') == 'global'
    with pytest.raises(Unsupported):
        Counts('k', (1, 1, 1), 1, 1, {'mystery.f32': 1}).classes()


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
small = st.floats(-(2.0**-100), 2.0**-100, width=32)


@given(
    st.tuples(finite, finite, finite)
    | st.tuples(small, small, small)
    | st.tuples(finite, finite, st.just(0.0))
)
def test_fma_rounds_once(values):
    a, b, c = (np.array([value], 'f4') for value in values)
    with np.errstate(all='ignore'):
        found = fma(a, b, c)[0]
    exact = Fraction(values[0]) * Fraction(values[1]) + Fraction(values[2])
    if not np.isfinite(found):
        assert abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103
        return
    with np.errstate(over='ignore'):
        around = [np.nextafter(found, np.float32(s)) for s in (-np.inf, np.inf)]
    error = abs(Fraction(float(found)) - exact)
    for other in around:
        if np.isfinite(other):
            distance = abs(Fraction(float(other)) - exact)
            even = int(found.view('u4')) % 2 == 0
            assert error < distance or (error == distance and even)


def test_fma_at_the_doubtful_places():
    """A sum of doubles would land halfway between two floats; the lost bit decides."""
    one = np.array([1.0], 'f4')
    ulp = np.array([2.0**-23], 'f4')
    half = np.array([2.0**-24], 'f4')
    for sign in (1, -1):
        tiny = np.array([sign * 2.0**-60], 'f4')
        with np.errstate(all='ignore'):
            # 1 + 2**-24 ± 2**-84: a double has no room for the last term.
            found = fma(half + tiny * 0, one + ulp, one)
        assert found[0] == 1 + 2.0**-23
        odd = fma(tiny, half, np.array([1 + 2.0**-23], 'f4'))
        assert odd[0] == np.float32(1 + 2.0**-23)


@given(st.integers(0, 2**32 - 1))
def test_bfloat16_is_torchs(bits):
    value = np.array([bits], 'u4').view('f4')
    expected = torch.from_numpy(value.copy()).bfloat16()
    if expected.isnan():
        assert to_bf16(value)[0] == 0x7FFF
    else:
        assert to_bf16(value).view('i2')[0] == expected.view(torch.int16).item()


@pytest.mark.parametrize(
    ('opcode', 'values', 'expected'),
    [
        ('div.s32', (-7, 2), -3),
        ('rem.s32', (-7, 2), -1),
        ('div.u32', (2**32 - 1, 2), 2**31 - 1),
        ('mul.hi.s32', (-(2**31), 2), -1),
        ('mul.wide.s32', (-(2**31), 2), -(2**32)),
        ('mad.lo.s32', (2**30, 4, 5), 5),
        ('shl.b32', (1, 40), 0),
        ('shr.s32', (-8, 40), -1),
        ('shr.u32', (8, 2), 2),
        ('shf.l.wrap.b32', (0x80000001, 3, 4), 0x38),
        ('bfe.u32', (0b110100, 2, 3), 0b101),
        ('bfe.s32', (0b110100, 2, 3), -3),
        ('prmt.b32', (0x33221100, 0x77665544, 0x7531), 0x77553311),
        ('min.f32', (float('nan'), 1.0), 1.0),
        ('setp.le.f32', (float('nan'), 0.0), False),
        ('setp.leu.f32', (float('nan'), 0.0), True),
        ('setp.ne.f32', (float('nan'), 0.0), False),
        ('setp.lo.u32', (1, 2), True),
        ('cvt.rzi.s32.f32', (-2.9,), -2),
        ('cvt.rzi.s32.f32', (3e9,), 2**31 - 1),
        ('cvt.rzi.s32.f32', (float('nan'),), 0),
        ('cvt.rn.f32.s32', (2**24 + 1,), 2.0**24),
        ('cvt.s64.s32', (-1,), -1),
        ('cvt.u64.u32', (2**32 - 1,), 2**32 - 1),
        ('selp.f32', (1.0, 2.0, False), 2.0),
    ],
)
def test_arithmetic(opcode, values, expected):
    name, *modifiers = opcode.split('.')
    known = operation(name, tuple(modifiers))
    operands = [
        np.array([[value]]).astype(dtype)
        for value, dtype in zip(values, known.sources, strict=True)
    ]
    with np.errstate(all='ignore'):
        assert known.function(*operands)[0, 0] == expected
