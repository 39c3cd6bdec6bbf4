"""The index of the zoo: every model of the metafiles, checked and typed.

`configs/*/metafile.yml` are the one source of figures, addresses and hashes; their
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
from gn_det.workbench.zoo.digests import Digest
from gn_det.workbench.zoo.yaml_file import Mapping, read_yaml

ROOT = Path(__file__).resolve().parents[2] / '.mim'
LOADABLE_FORMATS = ('mmdet2', 'mmdet3')
FORMATS = (*LOADABLE_FORMATS, 'detectron', 'detectron2')
STATUSES = ('published', 'measured', 'none')
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
class Figures:
    """Average precision in percent, and who published it."""

    by: str
    box_ap: float
    mask_ap: float | None = None


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
    """One config with the figures and weights of its training.

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
    elsewhere: tuple[Figures, ...] = ()
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
    index = Mapping(root / 'model-index.yml', '', read_yaml(root / 'model-index.yml'))
    listed = index.strings('Import')
    index.no_more_keys()
    found = {
        path.relative_to(root).as_posix()
        for path in (root / 'configs').glob('*/metafile.yml')
    }
    for missing in sorted(found - set(listed)):
        raise UserError(f'{index.path}: Import: {missing} is not listed')
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
        f'no model {name} in the zoo{hint}; `python tools/zoo.py list` names them all'
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
    metafile = Mapping(path, '', read_yaml(path))
    folder = Path(name).parent.as_posix()
    collections = {}
    for entry in metafile.mappings('Collections'):
        collection = _collection(entry, folder)
        collections[collection.name] = collection
    for entry in metafile.mappings('Models'):
        yield _model(entry, collections, root, folder)
    metafile.no_more_keys()


def _collection(entry: Mapping, folder: str) -> Collection:
    name = entry.string('Name')
    entry.place = f'Collections: {name}'
    metadata = entry.mapping('Metadata')
    paper = entry.mapping('Paper')
    collection = Collection(
        name=name,
        folder=folder,
        paper_title=paper.string('Title'),
        paper_url=paper.url('URL'),
        training_data=metadata.string('Training Data'),
        training_resources=metadata.maybe_string('Training Resources'),
        notes=entry.strings('Notes', required=False),
    )
    metadata.strings('Training Techniques', required=False)
    metadata.strings('Architecture', required=False)
    entry.string('README')
    for part in (metadata, paper, entry):
        part.no_more_keys()
    return collection


def _model(
    entry: Mapping, collections: dict[str, Collection], root: Path, folder: str
) -> Model:
    name = entry.name('Name')
    entry.place = f'Models: {name}'
    collection = entry.one_of('In Collection', tuple(collections))
    config = entry.string('Config')
    if Path(config).parent.as_posix() != folder or not (root / config).is_file():
        raise entry.error('Config', f'there is no {config} in {folder}')
    status = entry.one_of('Status', STATUSES)
    box_ap, mask_ap = _results(entry)
    if (status == 'none') != (box_ap is None):
        raise entry.error('Results', f'do not fit the status {status!r}')
    metadata = entry.mapping('Metadata')
    inference_ms, inference_hardware = _speed(metadata)
    model = Model(
        name=name,
        config=config,
        collection=collections[collection],
        status=status,
        source=entry.maybe_string('Source'),
        schedule=metadata.string('Schedule'),
        epochs=metadata.maybe_count('Epochs'),
        iterations=metadata.maybe_count('Iterations'),
        box_ap=box_ap,
        mask_ap=mask_ap,
        elsewhere=tuple(_elsewhere(entry)),
        memory_gb=metadata.maybe_positive('Training Memory (GB)'),
        inference_ms=inference_ms,
        inference_hardware=inference_hardware,
        weights=_weights(entry),
        log=entry.maybe_url('Training Log'),
        processes=metadata.maybe_count('Training Processes') or PROCESSES,
        prepare=entry.maybe_string('Prepare'),
        upstream_name=entry.maybe_string('Upstream Name'),
    )
    if (model.epochs is None) == (model.iterations is None):
        raise metadata.error('Epochs', 'either Epochs or Iterations is needed')
    if model.source is None and status != 'none':
        raise entry.error('Source', 'is missing: who has these figures?')
    if model.source is not None and status == 'none':
        raise entry.error('Source', "does not fit the status 'none'")
    metadata.no_more_keys()
    entry.no_more_keys()
    return model


def _results(entry: Mapping) -> tuple[float | None, float | None]:
    tasks = {'Object Detection': 'box AP', 'Instance Segmentation': 'mask AP'}
    figures: dict[str, float] = {}
    for result in entry.mappings('Results', required=False):
        metric = tasks[result.one_of('Task', tuple(tasks))]
        if metric in figures:
            raise result.error('Task', f'{metric} stands twice')
        result.string('Dataset')
        metrics = result.mapping('Metrics')
        figures[metric] = metrics.positive(metric, at_most=100)
        metrics.no_more_keys()
        result.no_more_keys()
    return figures.get('box AP'), figures.get('mask AP')


def _elsewhere(entry: Mapping) -> Iterator[Figures]:
    for figures in entry.mappings('Published Elsewhere', required=False):
        yield Figures(
            by=figures.string('By'),
            box_ap=figures.positive('box AP', at_most=100),
            mask_ap=figures.maybe_positive('mask AP', at_most=100),
        )
        figures.no_more_keys()


def _speed(metadata: Mapping) -> tuple[float | None, str | None]:
    """Milliseconds per image and the hardware they are of."""
    key = 'inference time (ms/im)'
    speeds = list(metadata.mappings(key, required=False))
    if not speeds:
        return None, None
    if len(speeds) > 1:
        raise metadata.error(key, 'the tables have room for one')
    (speed,) = speeds
    found = speed.positive('value'), speed.string('hardware')
    for of_openmmlab in ('backend', 'mode', 'resolution'):
        speed.maybe_string(of_openmmlab)
    speed.maybe_count('batch size')
    speed.no_more_keys()
    return found


def _weights(entry: Mapping) -> Weights | None:
    """OpenMMLab's tools load what stands under `Weights`, so only that may be there.

    Files of other formats stand under `Weights To Convert`.
    """
    loadable = entry.maybe_url('Weights')
    foreign = entry.maybe_url('Weights To Convert')
    if loadable is not None and foreign is not None:
        raise entry.error('Weights', 'stands beside Weights To Convert; give one')
    url = loadable or foreign
    if url is None:
        return None
    weights = Weights(
        url=url,
        format=entry.one_of('Weights Format', FORMATS),
        sha256=_digits(entry, 'sha256', url),
        md5=_digits(entry, 'md5', url),
        license=entry.maybe_string('Weights License'),
    )
    if weights.needs_conversion != (foreign is not None):
        key = 'Weights To Convert' if weights.needs_conversion else 'Weights'
        raise entry.error('Weights Format', f'{weights.format} belongs under {key}')
    return weights


def _digits(entry: Mapping, algorithm: str, url: str) -> str | None:
    """The digest of the metafile, which the name of the file may not contradict."""
    key = f'Weights {algorithm.upper()}'
    written = entry.maybe_string(key)
    if written is None:
        return None
    try:
        digest = Digest.parse(algorithm, written)
    except UserError as error:
        raise entry.error(key, str(error)) from error
    in_name = Digest.from_name(PurePosixPath(unquote(urlsplit(url).path)).name)
    if in_name is not None and in_name.algorithm == algorithm:
        shorter = min(len(in_name.value), len(digest.value))
        if in_name.value[:shorter] != digest.value[:shorter]:
            raise entry.error(key, f'{digest.value} is not what {url} says')
    return digest.value
