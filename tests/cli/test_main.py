"""The parser of `gn-det`: light, with mmdet's flags, and true to what it starts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import pytest

from gn_det.workbench.datasets import ShapesSpec
from gn_det.workbench.evaluation.coco_scores import EVALUATORS
from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.zoo.convert import FORMATS, TARGETS
from gn_det.workbench.zoo.download import TIMEOUT_S
from gn_det_cli import arguments
from gn_det_cli.commands import convert, shapes, zoo
from gn_det_cli.main import build_parser
from tests.running import REPOSITORY, call, run, user_error

LIGHT = """
import sys
from gn_det_cli.main import build_parser
build_parser()
print(sorted({'gn_det', 'torch', 'numpy', 'mmengine', 'rich'} & set(sys.modules)))
"""
COMMANDS = {
    'convert': 'convert',
    'eval_results': 'eval',
    'image_demo': 'demo',
    'make_shapes': 'shapes',
    'publish': 'publish',
    'report': 'report',
    'test': 'test',
    'train': 'train',
    'zoo': 'zoo',
}


def test_the_parser_imports_nothing_heavy():
    assert run(sys.executable, '-c', LIGHT).stdout == '[]\n'


def test_choices_and_defaults_are_the_workbenchs():
    assert arguments.EVALUATORS == EVALUATORS
    assert list(KINDS) == ['bbox', 'segm']
    assert (tuple(FORMATS), TARGETS) == (convert.FORMATS, convert.TARGETS)
    assert asdict(ShapesSpec()) == shapes.DEFAULTS
    assert zoo.TIMEOUT_S == TIMEOUT_S


@pytest.mark.parametrize('tool', COMMANDS)
def test_a_tool_is_the_command(tool):
    done = run(sys.executable, f'tools/{tool}.py', '--help')
    assert done.stdout.startswith(f'usage: gn-det {COMMANDS[tool]} ')


def test_every_python_tool_is_tried_above():
    found = {path.stem for path in REPOSITORY.glob('tools/*.py')}
    assert found - set(COMMANDS) == {'quickstart'}


@pytest.mark.parametrize('name', ['browse', 'info', 'init', 'train'])
def test_help_says_what_a_command_does_and_with_which_flags(name):
    done = call(name, '--help')
    assert (done.returncode, done.stderr) == (0, '')
    flags = {
        'browse': '--split --number --out',
        'info': '--size --cfg-options',
        'init': '--images --val --base --load-from --epochs --overwrite',
        'train': '--load-from --resume',
    }
    assert all(flag in done.stdout for flag in flags[name].split())


def test_the_module_is_the_command():
    done = run(sys.executable, '-m', 'gn_det', '--help')
    assert done.stdout == build_parser().format_help()


@pytest.mark.parametrize(
    ('words', 'resume'),
    [
        (['c.py'], None),
        (['c.py', '--resume'], 'auto'),
        (['c.py', '--resume', 'x.pth', '--amp'], 'x.pth'),
    ],
)
def test_resume_with_and_without_a_name(words, resume):
    assert build_parser().parse_args(['train', *words]).resume == resume


def test_options_given_in_several_places():
    words = [
        '--cfg-options',
        'a=1',
        'b=2',
        '--amp',
        '--cfg-options',
        'c=3',
        '--local-rank=1',
    ]
    args = build_parser().parse_args(['train', 'c.py', *words])
    assert (args.cfg_options, args.local_rank) == (['a=1', 'b=2', 'c=3'], 1)


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ([], 'the following arguments are required: COMMAND; see gn-det --help'),
        (['fly'], "invalid choice: 'fly'"),
        (['test', 'c.py'], 'required: CHECKPOINT; see gn-det test --help'),
        (['zoo', 'list', '--fast'], 'unrecognized arguments: --fast'),
    ],
)
def test_a_wrong_call_is_one_line(words, said):
    done = call(*words)
    assert said in user_error(done)
    assert done.stderr.count('\n') == 1


def test_ctrl_c_while_libraries_are_imported():
    code = (
        'import signal, sys, gn_det_cli.commands.zoo as zoo\n'
        'from gn_det_cli.main import main\n'
        'class Slow:\n'
        '    def find_spec(self, name, *_):\n'
        '        if name == "gn_det": signal.raise_signal(signal.SIGINT)\n'
        'sys.meta_path.insert(0, Slow())\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'main(["zoo", "list"])\n'
    )
    done: subprocess.CompletedProcess = run(sys.executable, '-c', code)
    assert (done.returncode, done.stderr) == (130, 'interrupted\n')
