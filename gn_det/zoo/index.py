"""The index of the zoo: every model of the metafiles, checked and typed.

`configs/*/metafile.yml` are the one source of figures, addresses and hashes; their
format is OpenMMLab's with a few keys of our own. `model-index.yml` lists them in the
order a reader meets them. In a checkout and in an installed wheel alike both lie under
`gn_det/.mim`.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gn_det.errors import UserError

ROOT = Path(__file__).resolve().parent.parent / '.mim'
LOADABLE_FORMATS = ('mmdet2', 'mmdet3')
FORMATS = (*LOADABLE_FORMATS, 'detectron', 'detectron2')
STATUSES = ('published', 'measured', 'none')


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
    box_ap: float | None = None
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
    percent, memory is per GPU in training, `inference_ms` per image.
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

    @property
    def config_path(self) -> Path:
        """The config file of this installation."""
        return ROOT / self.config


def load_index(root: Path = ROOT) -> tuple[Model, ...]:
    """All models, in the order of `model-index.yml` and of its metafiles.

    Raises:
        UserError: naming file, model and key, if a metafile is not what it should be.
    """
    index = _Mapping(root / 'model-index.yml', '', _read(root / 'model-index.yml'))
    listed = index.strings('Import')
    index.no_more_keys()
    found = {
        str(p.relative_to(root)) for p in (root / 'configs').glob('*/metafile.yml')
    }
    for missing in sorted(found - set(listed)):
        raise UserError(f'{index.path}: Import: {missing} is not listed')
    models = [model for name in listed for model in _read_metafile(root, name)]
    seen: dict[str, Model] = {}
    for model in models:
        twin = seen.setdefault(model.name, model)
        if twin is not model:
            raise UserError(
                f'model {model.name} stands twice: {twin.config} and {model.config}'
            )
    return tuple(models)


def find(name: str, root: Path = ROOT) -> Model:
    """The model of this name; the path of its config is as good.

    Raises:
        UserError: if there is none, with the names that are close.
    """
    models = load_index(root)
    for model in models:
        if name in (model.name, model.config):
            return model
    close = difflib.get_close_matches(name, [m.name for m in models], n=3, cutoff=0.5)
    hint = f' (did you mean {" or ".join(close)}?)' if close else ''
    raise UserError(
        f'no model {name} in the zoo{hint}; `python tools/zoo.py list` names them all'
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


class _Mapping:
    """A mapping of a metafile, read key by key; complaints name file, place and key."""

    def __init__(self, path: Path, place: str, values: Any) -> None:
        self.path = path
        self.place = place
        if not isinstance(values, dict):
            raise self.error('', f'expected a mapping, got {type(values).__name__}')
        self.values = dict(values)
        self.known: list[str] = []

    def error(self, key: str, problem: str) -> UserError:
        where = ': '.join(filter(None, (str(self.path), self.place, key)))
        return UserError(f'{where}: {problem}')

    def take(self, key: str, kinds: type | tuple[type, ...], required: bool) -> Any:
        self.known.append(key)
        value = self.values.pop(key, None)
        if value is None:
            if required:
                raise self.error(key, 'is missing')
            return None
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.error(key, f'has a wrong type, {type(value).__name__}')
        return value

    def string(self, key: str) -> str:
        return self.take(key, str, required=True)

    def maybe_string(self, key: str) -> str | None:
        return self.take(key, str, required=False)

    def number(self, key: str) -> float:
        return self.take(key, (int, float), required=True)

    def maybe_number(self, key: str) -> float | None:
        return self.take(key, (int, float), required=False)

    def maybe_integer(self, key: str) -> int | None:
        return self.take(key, int, required=False)

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.string(key)
        if value not in choices:
            raise self.error(key, f'{value!r} is none of {", ".join(choices)}')
        return value

    def strings(self, key: str, required: bool = True) -> tuple[str, ...]:
        values = self.take(key, list, required) or []
        if not all(isinstance(value, str) for value in values):
            raise self.error(key, 'expected a list of strings')
        return tuple(values)

    def mapping(self, key: str) -> _Mapping:
        return self._below(key, self.take(key, dict, required=True))

    def mappings(self, key: str, required: bool = True) -> Iterator[_Mapping]:
        for value in self.take(key, list, required) or []:
            yield self._below(key, value)

    def _below(self, key: str, values: Any) -> _Mapping:
        return _Mapping(self.path, ': '.join(filter(None, (self.place, key))), values)

    def no_more_keys(self) -> None:
        for key in self.values:
            close = difflib.get_close_matches(str(key), self.known, n=1)
            hint = f' (did you mean {close[0]}?)' if close else ''
            raise self.error(str(key), f'unknown key{hint}')


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except yaml.YAMLError as error:
        problem = ' '.join(str(error).split())
        raise UserError(f'{path}: is not YAML: {problem}') from error


def _read_metafile(root: Path, name: str) -> Iterator[Model]:
    path = root / name
    metafile = _Mapping(path, '', _read(path))
    folder = Path(name).parent.as_posix()
    collections = {}
    for entry in metafile.mappings('Collections'):
        collection = _collection(entry, folder)
        collections[collection.name] = collection
    for entry in metafile.mappings('Models'):
        yield _model(entry, collections, root, folder)
    metafile.no_more_keys()


def _collection(entry: _Mapping, folder: str) -> Collection:
    name = entry.string('Name')
    entry.place = f'Collections: {name}'
    metadata = entry.mapping('Metadata')
    paper = entry.mapping('Paper')
    collection = Collection(
        name=name,
        folder=folder,
        paper_title=paper.string('Title'),
        paper_url=paper.string('URL'),
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
    entry: _Mapping, collections: dict[str, Collection], root: Path, folder: str
) -> Model:
    name = entry.string('Name')
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
    speed = next(metadata.mappings('inference time (ms/im)', required=False), None)
    model = Model(
        name=name,
        config=config,
        collection=collections[collection],
        status=status,
        source=entry.maybe_string('Source'),
        schedule=metadata.string('Schedule'),
        epochs=metadata.maybe_integer('Epochs'),
        iterations=metadata.maybe_integer('Iterations'),
        box_ap=box_ap,
        mask_ap=mask_ap,
        elsewhere=tuple(_elsewhere(entry)),
        memory_gb=metadata.maybe_number('Training Memory (GB)'),
        inference_ms=speed and speed.number('value'),
        inference_hardware=speed and speed.string('hardware'),
        weights=_weights(entry),
        log=entry.maybe_string('Training Log'),
    )
    if (model.epochs is None) == (model.iterations is None):
        raise metadata.error('Epochs', 'either Epochs or Iterations is needed')
    if model.source is None and status != 'none':
        raise entry.error('Source', 'is missing: who has these figures?')
    metadata.no_more_keys()
    entry.no_more_keys()
    return model


def _results(entry: _Mapping) -> tuple[float | None, float | None]:
    tasks = {'Object Detection': 'box AP', 'Instance Segmentation': 'mask AP'}
    figures: dict[str, float | None] = {}
    for result in entry.mappings('Results', required=False):
        metric = tasks[result.one_of('Task', tuple(tasks))]
        result.string('Dataset')
        metrics = result.mapping('Metrics')
        figures[metric] = metrics.maybe_number(metric)
        metrics.no_more_keys()
        result.no_more_keys()
    return figures.get('box AP'), figures.get('mask AP')


def _elsewhere(entry: _Mapping) -> Iterator[Figures]:
    for figures in entry.mappings('Published Elsewhere', required=False):
        yield Figures(
            by=figures.string('By'),
            box_ap=figures.maybe_number('box AP'),
            mask_ap=figures.maybe_number('mask AP'),
        )
        figures.no_more_keys()


def _weights(entry: _Mapping) -> Weights | None:
    """OpenMMLab's tools load what stands under `Weights`, so only that may be there.

    Files of other formats stand under `Weights To Convert`.
    """
    loadable = entry.maybe_string('Weights')
    foreign = entry.maybe_string('Weights To Convert')
    if loadable is not None and foreign is not None:
        raise entry.error('Weights', 'stands beside Weights To Convert; give one')
    url = loadable or foreign
    if url is None:
        return None
    weights = Weights(
        url=url,
        format=entry.one_of('Weights Format', FORMATS),
        sha256=entry.maybe_string('Weights SHA256'),
        md5=entry.maybe_string('Weights MD5'),
        license=entry.maybe_string('Weights License'),
    )
    if weights.needs_conversion != (foreign is not None):
        key = 'Weights To Convert' if weights.needs_conversion else 'Weights'
        raise entry.error('Weights Format', f'{weights.format} belongs under {key}')
    return weights
