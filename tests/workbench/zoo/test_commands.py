"""The commands that are printed, for every model of the zoo."""

from __future__ import annotations

from gn_det.workbench.zoo import load_index
from gn_det.workbench.zoo.commands import (
    checkpoint_commands,
    checkpoint_path,
    evaluation_commands,
    training_commands,
)
from gn_det.workbench.zoo.sources import resolve
from gn_det_cli.main import build_parser


def test_every_download_is_found_by_the_commands_behind_it():
    models = [model for model in load_index() if model.weights]
    assert len(models) == 27
    for model in models:
        file = f'checkpoints/{resolve(model.name).file_name}'
        fetch, *convert = checkpoint_commands(model)
        assert fetch.split()[2:4] == ['download', model.name]
        for command in (fetch, *convert, evaluation_commands(model)[0]):
            build_parser().parse_args(command.split()[1:])
        made = checkpoint_path(model)
        if model.weights.needs_conversion:
            assert convert[0].split()[2:4] == [file, made]
        else:
            assert (convert, made) == ([], file)
        assert all(made in command for command in evaluation_commands(model))


def test_checkpoints_of_different_models_have_different_names():
    paths = [checkpoint_path(model) for model in load_index()]
    assert len(set(paths)) == len(paths)


def test_one_process_is_scaled_unless_the_rate_is_meant_for_it():
    for model in load_index():
        alone, *many = training_commands(model)
        assert alone.endswith(' --auto-scale-lr') == (model.processes > 1)
        assert [command.split()[2] for command in many] == (
            [str(model.processes)] if model.processes > 1 else []
        )
