"""Random bits of weight files changed: how many are refused, how many used.

    python -m tests.attacks.flips [--count 200] [--seed 0] [--kind KIND]

A changed file is *refused* with one line, *harmless* if what is read from it is as
before (a bit of padding, or of a time), *wrong* if it is read and is not. The exit code
is 1 if one of a kind that can be checked is wrong, or if one ends in a stack trace.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import random
import sys
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.loading.integrity import sealed


def _weights() -> OrderedDict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {'conv.weight': (16, 3, 3, 3), 'gn.weight': (16,), 'fc.weight': (40, 64)}
    return OrderedDict(
        (name, torch.randn(shape, generator=generator))
        for name, shape in shapes.items()
    )


def _training_checkpoint(path: Path, zipped: bool = True) -> None:
    hub = {'log_scalars': {'loss': HistoryBuffer([1.0, 2.0], [1, 1])}}
    content = {
        'state_dict': _weights(),
        'meta': {'epoch': 3, 'iter': 300, 'dataset_meta': {'classes': ('a', 'b')}},
        'message_hub': {**hub, 'runtime_info': {}, 'resumed_keys': {}},
        'optimizer': {'state': {0: {'momentum_buffer': torch.ones(16)}}},
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


def _pickle(path: Path) -> None:
    arrays = {name: value.numpy() for name, value in _weights().items()}
    path.write_bytes(pickle.dumps({'model': arrays, '__author__': 'x'}))


def _safetensors(path: Path) -> None:
    path.write_bytes(save(_weights(), {'meta': '{"classes": ["a"]}'}))


def _sealed(path: Path) -> None:
    path.write_bytes(sealed(save(_weights()), {'meta': '{"classes": ["a"]}'}))


class Kind(NamedTuple):
    """A kind of file, and whether damage of it can be told."""

    name: str
    write: Callable[[Path], None]
    checked: bool = True
    with_digest: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind('checkpoint.pth', _training_checkpoint),
        Kind('sealed.safetensors', _sealed),
        Kind('digest.safetensors', _safetensors, with_digest=True),
        Kind('digest.pkl', _pickle, with_digest=True),
        Kind(
            'digest.pth',
            lambda path: _training_checkpoint(path, zipped=False),
            with_digest=True,
        ),
        Kind('plain.safetensors', _safetensors, checked=False),
        Kind('plain.pkl', _pickle, checked=False),
        Kind(
            'old.pth',
            lambda path: _training_checkpoint(path, zipped=False),
            checked=False,
        ),
    )
}


def flip_bits(name: str, folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Change one random bit of a file `count` times, each time of the whole one."""
    kind = KINDS[name]
    path = folder / name
    kind.write(path)
    if kind.with_digest:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path = path.rename(path.with_name(f'{path.stem}-{digest[:8]}{path.suffix}'))
    content = path.read_bytes()
    whole = load_file(path)
    chosen = random.Random(seed).sample(range(8 * len(content)), count)
    outcome: Counter[str] = Counter()
    for bit in chosen:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        # A new file: what was read before may still be mapped to the old one.
        path.unlink()
        path.write_bytes(changed)
        outcome[_outcome(path, whole)] += 1
    return outcome


def _outcome(path: Path, whole: Any) -> str:
    try:
        loaded = load_file(path)
    except UserError as error:
        return 'trace' if '\n' in str(error) else 'refused'
    except Exception:
        return 'trace'
    return 'harmless' if _same(loaded, whole) else 'wrong'


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, HistoryBuffer):
        return all(map(_same, one.data, other.data))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--count', type=int, default=200, help='changes of each kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kind', choices=KINDS, help='default: all')
    args = parser.parse_args()
    columns = ('refused', 'harmless', 'wrong', 'trace')
    print(f'{"file":24}{"tried":>9}' + ''.join(f'{name:>10}' for name in columns))
    failed = False
    for name in [args.kind] if args.kind else KINDS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = flip_bits(name, Path(folder), args.count, args.seed)
        counts = ''.join(f'{outcome[column]:10}' for column in columns)
        note = '' if KINDS[name].checked else '  (nothing to check it by)'
        print(f'{name:24}{args.count:9}{counts}{note}')
        failed |= bool(outcome['trace'] or (KINDS[name].checked and outcome['wrong']))
    sys.exit(failed)


if __name__ == '__main__':
    main()
