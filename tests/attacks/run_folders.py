"""Run folders that are damaged or made to deceive, and the report on them.

`python -m tests.attacks.run_folders [COUNT] [SEED]` changes a whole run in COUNT ways,
drawn from a seed, and reports on each. An attack is survived if there is a page, well
formed down to its figures, or one line; if nothing of the folder was run or changed;
and if no page says "finished" of a run without its last validation, or shows the
settings of a start that logged nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from gn_det.workbench.datasets import ShapesSpec, generate_shapes
from gn_det.workbench.errors import UserError
from gn_det.workbench.report import write_comparison, write_report
from tests.workbench.report.pages import Page

START = '20261121_100000'
SCALARS = f'{START}/vis_data/scalars.json'
CONFIG = f'{START}/vis_data/config.py'
FILES = (
    SCALARS, SCALARS, CONFIG, f'{START}/{START}.log', f'{START}/{START}.json',
    'val.scores.json', 'val.scores.json', 'last_checkpoint', 'images',
)  # fmt: skip
MARK = 'was-run'
# Only in the config of a start that logged nothing.
LATER = '0.777'
ODD_BYTES = (
    b'\xff\xfe\x00', b'\x00' * 5000, b'NaN', b'-Infinity', b'1e999', b'9' * 5000,
    b'[' * 100_000, b'{"a":' * 100_000, b'x' * 3_000_000, b'"\\ud800"', b'\r\n\r\n',
    b'</svg></section><script>', b'__import__("os").mkdir("was-run")\n',
)  # fmt: skip
ODD_VALUES = (
    None, True, -1, 0, 1.5, 10**400, float('nan'), float('inf'), 1e300, '', 'a\0b',
    '../../../etc/passwd', '\x1b[31m', '\ud800', 'x' * 100_000, [], {}, [[]], {'a': 1},
)  # fmt: skip


def flip(content: bytes, chosen: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chosen.randint(1, 8) if changed else 0):
        changed[chosen.randrange(len(changed))] ^= 1 << chosen.randrange(8)
    return bytes(changed)


def cut(content: bytes, chosen: random.Random) -> bytes:
    return content[: chosen.randint(0, len(content))]


def repeat(content: bytes, chosen: random.Random) -> bytes:
    at = chosen.randint(0, len(content))
    return content[:at] + content[at // 2 :]


def insert(content: bytes, chosen: random.Random) -> bytes:
    at = chosen.choice([0, len(content), chosen.randint(0, len(content))])
    return content[:at] + chosen.choice(ODD_BYTES) + content[at:]


def new_number(content: bytes, chosen: random.Random) -> bytes:
    numbers = list(re.finditer(rb'-?\d+\.?\d*(e-?\d+)?', content))
    if not numbers:
        return content
    one = chosen.choice(numbers)
    odd = chosen.choice([b'-1', b'0', b'1e300', b'NaN', b'1' + b'0' * 400, b'"a"'])
    return content[: one.start()] + odd + content[one.end() :]


def new_value(content: bytes, chosen: random.Random) -> bytes:
    """Another value, or key, somewhere in the JSON of a line."""
    lines = content.splitlines() or [b'{}']
    at = chosen.randrange(len(lines))
    try:
        node = whole = json.loads(lines[at])
    except ValueError:
        return insert(content, chosen)
    while isinstance(node, dict | list) and node:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key, odd = chosen.choice(keys), chosen.choice(ODD_VALUES)
        if not isinstance(node[key], dict | list) or chosen.random() < 0.2:
            if isinstance(node, dict) and chosen.random() < 0.2:
                node[str(odd)] = node.pop(key)
            else:
                node[key] = odd
            break
        node = node[key]
    lines[at] = json.dumps(whole).encode(errors='surrogatepass')
    return b'\n'.join(lines)


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip, cut, repeat, insert, new_number, new_value, new_value,
)  # fmt: skip
REPLACEMENTS: dict[str, Callable[[Path], None]] = {
    'no file': lambda path: None,
    'folder': os.mkdir,
    'pipe': os.mkfifo,
    'link to itself': lambda path: os.symlink(path.name, path),
    'link to nothing': lambda path: os.symlink('nowhere', path),
}


def attack(work_dir: Path, chosen: random.Random) -> str:
    """Change a file of a run; what was done."""
    name = chosen.choice(FILES)
    path = work_dir / name
    if name == 'images':
        path = chosen.choice(sorted((work_dir / 'data/val').iterdir()))
    if chosen.random() < 0.15:
        kind = chosen.choice(list(REPLACEMENTS))
        path.unlink()
        REPLACEMENTS[kind](path)
        return f'{name}: {kind}'
    change = chosen.choice(CHANGES)
    path.write_bytes(change(path.read_bytes(), chosen))
    return f'{name}: {change.__name__}'


def outcome(work_dir: Path, done: str) -> str:
    """What the report on a folder is: `page`, `one line`, or in capitals what not."""
    before = digests(work_dir)
    try:
        page = write_report(work_dir, str(work_dir / 'data'))
        write_comparison([work_dir, work_dir.parent / 'good'], work_dir / 'both.html')
    except UserError as error:
        return 'one line' if len(str(error).splitlines()) == 1 else f'LINES {error}'
    except Exception as error:
        return f'TRACE {error!r}'
    for made in (page, work_dir / 'both.html'):
        try:
            read = Page(made)
            for sources in read.images.values():
                for source in sources:
                    if source.startswith('data:image/svg'):
                        svg = base64.b64decode(source.partition('base64,')[2])
                        ElementTree.fromstring(svg)
        except Exception as error:
            return f'BROKEN {made.name} {error!r}'
        reasons = [reason for found in read.missing.values() for reason in found]
        if traces := [reason for reason in reasons if 'cannot be made' in reason]:
            return f'TRACE {traces[0]}'
        if LATER in made.read_text():
            return 'SILENT settings of another start'
        if '<script' in made.read_text():
            return 'SILENT script'
        made.unlink()
    if digests(work_dir) != before:
        return 'CHANGED'
    if Path(MARK).exists():
        return 'RUN'
    # A config may say that the run was to be shorter.
    is_whole = CONFIG in done or last_validation(work_dir)
    if is_finished(read) and not is_whole:
        return 'SILENT finished without its last validation'
    return 'page'


def is_finished(page: Page) -> bool:
    """Whether the comparison calls the run finished."""
    status = page.sections['Precision and speed'].partition('status')[2]
    return status.strip().startswith('finished')


def last_validation(work_dir: Path) -> bool:
    """Whether a line of the log has the validation after the second epoch."""
    try:
        lines = (work_dir / SCALARS).read_bytes().decode(errors='replace').split('\n')
    except OSError:
        return False
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and 'loss' not in content:
            step = content.get('step')
            if isinstance(step, int | float) and step >= 2:
                return True
    return False


def digests(folder: Path) -> dict[str, str]:
    """Of every regular file."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def good_run(folder: Path) -> Path:
    """A finished run with its data, and a later start that logged nothing."""
    # The fixtures' module wants pytest.
    from pycocotools.coco import COCO

    from tests.workbench.report.conftest import write_run

    data = folder / 'good/data'
    generate_shapes(
        data, ShapesSpec(num_train=2, num_val=2, height=48, width=48, crowd_fraction=0)
    )
    truth = COCO(data / 'annotations/instances_val.json')
    work_dir = write_run(folder / 'good', data, truth)
    (work_dir / START / f'{START}.json').write_text('{"coco/bbox_mAP": 0.4}')
    (work_dir / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    later = work_dir / '20261122_100000/vis_data'
    later.mkdir(parents=True)
    config = (work_dir / CONFIG).read_text()
    (later / 'config.py').write_text(f'{config}\nlater = {LATER}\n')
    (later / 'scalars.json').write_text('')
    return work_dir


def run(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """What was done and what came of it, for every attack."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        good = good_run(Path(name))
        for number in range(count):
            chosen = random.Random(f'{seed} {number}')
            work_dir = shutil.copytree(good, good.with_name('attacked'))
            done = attack(work_dir, chosen)
            found.append((done, outcome(work_dir, done)))
            shutil.rmtree(work_dir)
    return found


def main() -> None:
    count, seed = (*map(int, sys.argv[1:3]), *(300, 0)[len(sys.argv[1:3]) :])
    found = run(count, seed)
    for done, result in found:
        if result not in ('page', 'one line'):
            print(f'{result[:200]}: {done}')
    counts = Counter(result.split()[0] for _, result in found)
    traces = counts['TRACE'] + counts['BROKEN'] + counts['LINES']
    silent = counts['SILENT'] + counts['RUN'] + counts['CHANGED']
    print(f'{count} tried, {traces} traces, {silent} silent')
    sys.exit(bool(traces or silent))


if __name__ == '__main__':
    main()
