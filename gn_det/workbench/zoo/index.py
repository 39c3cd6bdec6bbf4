"""The index of the zoo: every model of the metafiles, checked and typed.

`configs/*/metafile.yml` are the one source of scores, addresses and hashes; their
format is OpenMMLab's with a few keys of our own. `model-index.yml` lists them in the
order a reader meets them. In a checkout and in an installed wheel alike both lie under
`gn_det/.mim`.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import Digest
from gn_det.workbench.zoo import metafile as metafiles
from gn_det.workbench.zoo.metafile import (
    LOADABLE_FORMATS,
    BoxResult,
    Elsewhere,
    MaskResult,
    Metafile,
    ModelEntry,
    ModelIndex,
)

ROOT = Path(__file__).resolve().parents[2] / '.mim'
# The zoo's learning rates are meant for eight GPUs unless a metafile says otherwise.
PROCESSES = 8


@dataclass(frozen=True)
class Weights:
    """A published file of weights; `sha256` and `md5` are hex digits or a prefix."""

    url: str
    format: str
    sha256: str | None = None
    md5: str | None = None
    license: str | None = None

    @property
    def needs_conversion(self) -> bool:
        """Whether mmdet cannot load the file as it is."""
        return self.format not in LOADABLE_FORMATS


@dataclass(frozen=True)
class Collection:
    """A folder of configs with what its models share."""

    name: str
    folder: str
    paper_title: str
    paper_url: str
    training_data: str
    training_resources: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """One config with the scores and weights of its training.

    `config` is relative to the root of the repository, `box_ap` and `mask_ap` are in
    percent, memory is per GPU in training, `inference_ms` per image. `processes` is how
    many of them the learning rate is meant for, `prepare` the command that makes the
    data where that is not COCO, `upstream_name` what mmdetection calls the model.
    """

    name: str
    config: str
    collection: Collection
    status: str
    schedule: str
    epochs: int | None = None
    iterations: int | None = None
    source: str | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    elsewhere: tuple[Elsewhere, ...] = ()
    memory_gb: float | None = None
    inference_ms: float | None = None
    inference_hardware: str | None = None
    weights: Weights | None = None
    log: str | None = None
    processes: int = PROCESSES
    prepare: str | None = None
    upstream_name: str | None = None

    @property
    def config_path(self) -> Path:
        """The config file of this installation."""
        return ROOT / self.config


@functools.cache
def load_index(root: Path = ROOT) -> tuple[Model, ...]:
    """All models, in the order of `model-index.yml` and of its metafiles; read once.

    Raises:
        UserError: naming file, model and key, if a metafile is not what it should be.
    """
    path = root / 'model-index.yml'
    listed = metafiles.read(path, ModelIndex).listed
    found = {
        metafile.relative_to(root).as_posix()
        for metafile in (root / 'configs').glob('*/metafile.yml')
    }
    for missing in sorted(found - set(listed)):
        raise UserError(f'{path}: Import: {missing} is not listed')
    models = [model for name in listed for model in _read_metafile(root, name)]
    by_name: dict[str, Model] = {}
    by_config: dict[str, Model] = {}
    for model in models:
        for name in filter(None, (model.name, model.upstream_name)):
            twin = by_name.setdefault(name, model)
            if twin is not model:
                raise UserError(
                    f'model {name} stands twice: {twin.config} and {model.config}'
                )
        twin = by_config.setdefault(model.config, model)
        if twin is not model:
            raise UserError(
                f'{model.config} stands twice: for {twin.name} and {model.name}'
            )
    return tuple(models)


def find(name: str, root: Path = ROOT) -> Model:
    """The model of this name; mmdetection's name for it, or its config, is as good.

    A config is given as a path, or by the end of its path: `gn/NAME.py`, `gn/NAME`.

    Raises:
        UserError: if there is none, with the names that are close.
    """
    models = load_index(root)
    for model in models:
        if name in (model.name, model.upstream_name) or _is_config(name, model):
            return model
    close = difflib.get_close_matches(name, [m.name for m in models], n=3, cutoff=0.5)
    hint = f' (did you mean {" or ".join(close)}?)' if close else ''
    raise UserError(
        f'no model {name} in the zoo{hint}; `gn-det zoo list` names them all'
    )


def _is_config(name: str, model: Model) -> bool:
    path = PurePosixPath(name.removeprefix('gn_det::').removesuffix('.py'))
    config = PurePosixPath(model.config.removesuffix('.py'))
    if path.parts and path.parts == config.parts[-len(path.parts) :]:
        return True
    return path.name == config.name and os.path.realpath(name) == os.path.realpath(
        model.config_path
    )


def matching(pattern: str | None, root: Path = ROOT) -> tuple[Model, ...]:
    """Models whose config contains `pattern`, in which `*` stands for anything.

    Raises:
        UserError: if nothing matches.
    """
    models = load_index(root)
    if pattern is None:
        return models
    glob = f'*{pattern}*'.lower()
    chosen = tuple(m for m in models if fnmatch.fnmatchcase(m.config.lower(), glob))
    if not chosen:
        raise UserError(f'no model of the zoo matches {pattern!r}')
    return chosen


def _read_metafile(root: Path, name: str) -> Iterator[Model]:
    path = root / name
    metafile = metafiles.read(path, Metafile)
    folder = Path(name).parent.as_posix()
    collections = {
        entry.name: Collection(
            name=entry.name,
            folder=folder,
            paper_title=entry.paper.title,
            paper_url=entry.paper.url,
            training_data=entry.metadata.training_data,
            training_resources=entry.metadata.training_resources,
            notes=tuple(entry.notes),
        )
        for entry in metafile.collections
    }
    for content in metafile.models:
        place = f'{path}: {content.get("Name")}'
        entry = metafiles.converted(content, ModelEntry, place)
        for problem in _problems(entry, collections, root, folder):
            raise UserError(f'{place}: {problem}')
        yield _model(entry, collections[entry.collection])


def _problems(
    entry: ModelEntry, collections: dict[str, Collection], root: Path, folder: str
) -> Iterator[str]:
    """What each key may say, but not beside the others."""
    if entry.collection not in collections:
        yield f'In Collection: {entry.collection!r} is none of {", ".join(collections)}'
    if Path(entry.config).parent.as_posix() != folder:
        yield f'Config: {entry.config} is not in {folder}'
    if not (root / entry.config).is_file():
        yield f'Config: there is no {entry.config}'
    tasks = [type(result) for result in entry.results]
    if len(set(tasks)) != len(tasks):
        yield 'Results: a task stands twice'
    if (entry.status == 'none') != (BoxResult not in tasks):
        yield f'Results: do not fit the status {entry.status!r}'
    if (entry.status == 'none') != (entry.source is None):
        yield f'Source: does not fit the status {entry.status!r}'
    if (entry.metadata.epochs is None) == (entry.metadata.iterations is None):
        yield 'Metadata: either Epochs or Iterations is needed'
    if entry.weights is not None and entry.weights_to_convert is not None:
        yield 'Weights: stands beside Weights To Convert; give one'
    url = entry.weights or entry.weights_to_convert
    if url is None:
        return
    if (entry.weights_format in LOADABLE_FORMATS) != (entry.weights is not None):
        key = 'Weights' if entry.weights is None else 'Weights To Convert'
        yield f'Weights Format: {entry.weights_format} belongs under {key}'
    in_name = Digest.from_name(PurePosixPath(unquote(urlsplit(url).path)).name)
    for algorithm in ('sha256', 'md5'):
        written = getattr(entry, f'weights_{algorithm}')
        if written is None:
            continue
        try:
            digest = Digest.parse(algorithm, written)
        except UserError as error:
            yield f'Weights {algorithm.upper()}: {error}'
            continue
        if in_name is not None and in_name.contradicts(digest):
            yield f'Weights {algorithm.upper()}: {digest.value} is not what {url} says'


def _model(entry: ModelEntry, collection: Collection) -> Model:
    metadata = entry.metadata
    ap = {type(result): result.metrics.ap for result in entry.results}
    speed = metadata.speed[0] if metadata.speed else None
    url = entry.weights or entry.weights_to_convert
    weights = url and Weights(
        url=url,
        format=entry.weights_format,
        sha256=entry.weights_sha256,
        md5=entry.weights_md5,
        license=entry.weights_license,
    )
    return Model(
        name=entry.name,
        config=entry.config,
        collection=collection,
        status=entry.status,
        source=entry.source,
        schedule=metadata.schedule,
        epochs=metadata.epochs,
        iterations=metadata.iterations,
        box_ap=ap.get(BoxResult),
        mask_ap=ap.get(MaskResult),
        elsewhere=tuple(entry.elsewhere),
        memory_gb=metadata.memory_gb,
        inference_ms=speed and speed.value,
        inference_hardware=speed and speed.hardware,
        weights=weights,
        log=entry.log,
        processes=metadata.processes or PROCESSES,
        prepare=entry.prepare,
        upstream_name=entry.upstream_name,
    )
