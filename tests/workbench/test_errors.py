"""`report_errors`: what becomes of the exceptions and of the output of a tool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gn_det.workbench import errors
from gn_det.workbench.errors import UserError, report_errors

HEAD = 'from errors import report_errors, UserError\n@report_errors\ndef main():\n'
needs_full = pytest.mark.skipif(
    not Path('/dev/full').exists(), reason='needs /dev/full'
)
LONG = "print('a line\\n' * 20_000)"


def run(body: str, stdout: object, **extra: str) -> subprocess.CompletedProcess:
    """Run a tool with this body; the module alone imports in no time."""
    return subprocess.run(
        [sys.executable, '-c', f'{HEAD}    {body}\nmain()'],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=Path(errors.__file__).parent,
        env={**os.environ, **extra},
        text=True,
        check=False,
    )


def test_a_user_error_is_one_line(capsys):
    @report_errors
    def main() -> None:
        raise UserError('no such thing')

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == 'error: no such thing\n'


def test_a_name_that_a_terminal_would_obey_is_escaped(capsys):
    @report_errors
    def main() -> None:
        raise UserError('no größe\nerror: \x1b[2J')

    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == 'error: no größe\\nerror: \\x1b[2J\n'


def test_a_defect_keeps_its_trace(capsys):
    @report_errors
    def main() -> None:
        print('before')
        raise BrokenPipeError('of another file')

    with pytest.raises(BrokenPipeError, match='of another file'):
        main()
    assert capsys.readouterr().out == 'before\n'


@pytest.mark.parametrize('body', [LONG, "print('short')"], ids=['long', 'short'])
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_is_gone_is_no_error(body, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'w') as pipe:
        done = run(body, pipe, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (141, '')


@needs_full
@pytest.mark.parametrize('body', [LONG, "print('short')"], ids=['long', 'short'])
def test_a_full_disk_behind_stdout_is_one_line(body):
    with open('/dev/full', 'w') as full:
        done = run(body, full)
    line = 'error: stdout cannot be written: No space left on device\n'
    assert (done.returncode, done.stderr) == (2, line)


@needs_full
def test_a_log_that_cannot_be_written_is_told_of_at_the_end():
    body = """import logging, sys
    logging.basicConfig(stream=sys.stdout)
    for _ in range(3):
        logging.warning('lost')
    sys.stderr.write('done|')"""
    with open('/dev/full', 'w') as full:
        done = run(body, full)
    line = 'done|error: stdout cannot be written: No space left on device\n'
    assert (done.returncode, done.stderr) == (2, line)


def test_a_copy_of_stdout():
    body = "import copy, sys; print('x', file=copy.copy(sys.stdout))"
    done = run(body, subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, 'x\n')


@needs_full
def test_no_handler_of_file_errors_takes_the_outputs():
    body = f"""try:
        {LONG}
    except OSError:
        raise UserError('taken for a file')"""
    with open('/dev/full', 'w') as full:
        assert 'stdout cannot be written' in run(body, full).stderr


def test_characters_without_a_code_are_escaped():
    done = run(r"print('8eee\u2026 \u00d7')", subprocess.PIPE, PYTHONIOENCODING='ascii')
    assert (done.returncode, done.stdout) == (0, '8eee\\u2026 \\xd7\n')
