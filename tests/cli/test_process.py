"""`report_errors`: what becomes of the exceptions and of the output of a command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.image_loading import BrokenImage
from gn_det_cli.process import report_errors
from tests.running import environment

HEAD = (
    'from gn_det_cli.process import report_errors\n'
    'class Mistake(Exception): exit_code = 2\n'
    '@report_errors()\ndef main():\n'
)


def run(body: str, stdout: object, **extra: str) -> subprocess.CompletedProcess:
    """Run a command with this body; it imports nothing slow."""
    return subprocess.run(
        [sys.executable, '-c', f'{HEAD}    {body}\nmain()'],
        stdout=stdout,
        stderr=subprocess.PIPE if stdout != subprocess.PIPE else subprocess.STDOUT,
        env=environment(**extra),
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        ('no such thing', 'error: no such thing\n'),
        # A terminal would obey it.
        ('no größe\nerror: \x1b[2J', 'error: no größe\\nerror: \\x1b[2J\n'),
    ],
)
def test_a_user_error_is_one_line(text, line, capsys):
    with pytest.raises(SystemExit) as caught, report_errors():
        raise UserError(text)
    assert caught.value.code == 2
    assert capsys.readouterr().err == line


def test_other_ranks_are_silent_but_of_what_one_met_alone(capsys, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(SystemExit) as caught, report_errors():
        raise UserError('no such thing')
    assert (caught.value.code, capsys.readouterr().err) == (2, '')
    with pytest.raises(SystemExit), report_errors():
        raise BrokenImage('image a.png: the file is empty')
    assert capsys.readouterr().err == 'error: image a.png: the file is empty\n'


def test_a_defect_keeps_its_trace():
    with pytest.raises(BrokenPipeError, match='of another file'), report_errors():
        raise BrokenPipeError('of another file')


@pytest.mark.parametrize('mistake', ['Mistake', 'ValueError'])
def test_the_error_is_the_last_line_where_both_streams_are_one_file(mistake):
    done = run(f"print('x'); raise {mistake}('last')", subprocess.PIPE)
    assert done.stdout.startswith('x\n')
    assert done.stdout.endswith(': last\n')


@pytest.mark.parametrize(
    'body', ["print('a line\\n' * 20_000)", "print('short')"], ids=['long', 'short']
)
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_is_gone_is_no_error(body, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'w') as pipe:
        done = run(body, pipe, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (141, '')


def test_a_log_without_a_reader_ends_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    body = """import logging, sys
    logging.basicConfig(stream=sys.stdout)
    for _ in range(3):
        logging.warning('lost')
    sys.stderr.write('done|')"""
    with open(writer, 'w') as pipe:
        done = run(body, pipe)
    assert (done.returncode, done.stderr) == (0, 'done|')


def test_characters_without_a_code_are_escaped():
    done = run(r"print('8eee\u2026 \u00d7')", subprocess.PIPE, PYTHONIOENCODING='ascii')
    assert (done.returncode, done.stdout) == (0, '8eee\\u2026 \\xd7\n')
