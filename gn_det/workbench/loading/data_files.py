"""Pickled data, such as proposals and annotations: numbers and plain values only."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import IO, Any

from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler

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
            raise UserError(
                f'{getattr(file, "name", "a pickled data file")} is read as data: '
                f'{error}; --trust loads files of your own with full rights'
            ) from error


def restrict_pickles() -> None:
    """Let `mmengine.load` take no code from pickles from now on."""
    register_handler(['pickle', 'pkl'])(DataPickleHandler)
