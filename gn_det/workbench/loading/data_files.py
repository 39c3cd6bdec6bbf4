"""Data in pickles and YAML, such as proposals and annotations: plain values only."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import IO, Any

import yaml
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.files import local_files_are_trusted
from gn_det.workbench.loading.restricted import load_pickle


class DataPickleHandler(PickleHandler):
    """What `mmengine.load` reads `.pkl` files by; with full rights after `--trust`."""

    def load_from_fileobj(self, file: IO[bytes], **kwargs: Any) -> Any:
        """The content: arrays, tensors and builtin containers.

        Raises:
            UserError: if it asks for anything else; that is not imported.
        """
        if local_files_are_trusted():
            return super().load_from_fileobj(file, **kwargs)
        try:
            return load_pickle(file)
        except UnpicklingError as error:
            raise _refused(file, error) from error


class DataYamlHandler(YamlHandler):
    """What `mmengine.load` reads `.yml` files by; with full rights after `--trust`."""

    def load_from_fileobj(self, file: IO[str], **kwargs: Any) -> Any:
        """The content: what YAML itself has words for.

        Raises:
            UserError: if it asks for Python's objects; none is made.
        """
        if local_files_are_trusted():
            return super().load_from_fileobj(file, **kwargs)
        try:
            return yaml.load(file, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
        except yaml.constructor.ConstructorError as error:
            raise _refused(file, error.problem) from error


def _refused(file: IO, why: object) -> UserError:
    return UserError(
        f'{getattr(file, "name", "a data file")} is read as data: {why}; --trust loads '
        'files of your own with full rights'
    )


def read_as_data() -> None:
    """Let `mmengine.load` take no code from pickles and YAML from now on."""
    register_handler(['pickle', 'pkl'])(DataPickleHandler)
    register_handler(['yaml', 'yml'])(DataYamlHandler)
