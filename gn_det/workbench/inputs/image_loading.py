"""An image that cannot be trained on, named when it is loaded, also by a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.runner import Runner
from torch.utils.data import Dataset

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.images import Unreadable, decoded_size, size_differs


class BrokenImage(UserError):
    """One rank meets it alone, in a worker process, and has to be heard.

    torch's DataLoader raises an error of a worker again with the worker's whole stack
    trace as its text; of that the last line is kept.
    """

    on_any_rank = True

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f'{type(self).__name__}: ')[2].strip())


class LoadNamedImage:
    """`LoadImageFromFile`, whose errors name the file in one line.

    Raises:
        BrokenImage: if the file is missing, no image, larger than can be held, or not
            of the size that the annotation file says.
    """

    def __init__(self, load: LoadImageFromFile) -> None:
        self.load = load

    def __call__(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load `results['img_path']`."""
        path = results['img_path']
        try:
            if self.load.backend_args is None and '://' not in path:
                # Before OpenCV takes memory for what the file says it is.
                decoded_size(path, turned=False)
            loaded = self.load(results)
        # What reads the file, or fetches it from elsewhere, may fail in any way.
        except Exception as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            known = reason if isinstance(error, Unreadable) else f'not read: {reason}'
            raise BrokenImage(f'image {path}: {known}; {_WAY_OUT}') from error
        if loaded is not None and 'height' in results:
            found, said = loaded['ori_shape'], (results['height'], results['width'])
            if tuple(found) != said:
                raise BrokenImage(f'image {path}: {size_differs(found, said)}')
        return loaded


_WAY_OUT = 'mend the file, or pass --skip-broken-images'


def name_broken_images(runner: Runner) -> None:
    """Let the datasets that a runner builds from now on load by `LoadNamedImage`."""
    build = runner.build_dataloader

    def build_named(*args: Any, **kwargs: Any) -> Any:
        loader = build(*args, **kwargs)
        replace_loading(loader.dataset)
        return loader

    runner.build_dataloader = build_named


def replace_loading(dataset: Dataset) -> None:
    """Let a dataset and those in it load by `LoadNamedImage`."""
    for inner in (
        getattr(dataset, 'dataset', None),
        getattr(dataset, '_dataset', None),
        *getattr(dataset, 'datasets', ()),
    ):
        if inner is not None:
            replace_loading(inner)
    steps: list[Callable] = getattr(
        getattr(dataset, 'pipeline', None), 'transforms', []
    )
    for number, step in enumerate(steps):
        if isinstance(step, LoadImageFromFile) and hasattr(dataset, 'data_root'):
            steps[number] = LoadNamedImage(step)
