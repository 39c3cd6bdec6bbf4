"""What a metafile may say: OpenMMLab's format with a few keys of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml
from msgspec import Meta, field

from gn_det.workbench.errors import UserError

LOADABLE_FORMATS = ('mmdet2', 'mmdet3')

# One line that a table has room for.
Text = Annotated[str, Meta(pattern=r'^[^|\n]*[^|\s][^|\n]*$')]
Name = Annotated[str, Meta(pattern=r'^[A-Za-z0-9][\w.+-]*$')]
Url = Annotated[str, Meta(pattern=r'^https?://[\w.-]+(:\d+)?(/[^|\s]*)?$')]
Percent = Annotated[float, Meta(gt=0, le=100)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(gt=0)]

_Kind = TypeVar('_Kind')


class _Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A mapping in which no other key may stand."""


class Paper(_Entry):
    url: Url = field(name='URL')
    title: Text = field(name='Title')


class CollectionMetadata(_Entry):
    training_data: Text = field(name='Training Data')
    training_resources: Text | None = field(name='Training Resources', default=None)
    # For OpenMMLab's tools.
    techniques: list[str] | None = field(name='Training Techniques', default=None)
    architecture: list[str] | None = field(name='Architecture', default=None)


class CollectionEntry(_Entry):
    name: Text = field(name='Name')
    metadata: CollectionMetadata = field(name='Metadata')
    paper: Paper = field(name='Paper')
    readme: Text = field(name='README')
    notes: list[Text] = field(name='Notes', default_factory=list)


class Speed(_Entry):
    value: Positive
    hardware: Text
    # For OpenMMLab's tools.
    backend: Text | None = None
    mode: Text | None = None
    resolution: Text | None = None
    batch_size: Count | None = field(name='batch size', default=None)


class Metadata(_Entry):
    schedule: Text = field(name='Schedule')
    epochs: Count | None = field(name='Epochs', default=None)
    iterations: Count | None = field(name='Iterations', default=None)
    processes: Count | None = field(name='Training Processes', default=None)
    memory_gb: Positive | None = field(name='Training Memory (GB)', default=None)
    speed: Annotated[list[Speed], Meta(max_length=1)] = field(
        name='inference time (ms/im)', default_factory=list
    )


class BoxResult(_Entry, tag_field='Task', tag='Object Detection'):
    class Metrics(_Entry):
        ap: Percent = field(name='box AP')

    dataset: Text = field(name='Dataset')
    metrics: Metrics = field(name='Metrics')


class MaskResult(_Entry, tag_field='Task', tag='Instance Segmentation'):
    class Metrics(_Entry):
        ap: Percent = field(name='mask AP')

    dataset: Text = field(name='Dataset')
    metrics: Metrics = field(name='Metrics')


class Elsewhere(_Entry):
    by: Text = field(name='By')
    box_ap: Percent = field(name='box AP')
    mask_ap: Percent | None = field(name='mask AP', default=None)


class ModelEntry(_Entry):
    name: Name = field(name='Name')
    collection: Text = field(name='In Collection')
    config: Text = field(name='Config')
    status: Literal['published', 'measured', 'none'] = field(name='Status')
    metadata: Metadata = field(name='Metadata')
    results: list[BoxResult | MaskResult] = field(name='Results', default_factory=list)
    source: Text | None = field(name='Source', default=None)
    elsewhere: list[Elsewhere] = field(name='Published Elsewhere', default_factory=list)
    # OpenMMLab's tools load what stands under `Weights`, so only that may be there.
    weights: Url | None = field(name='Weights', default=None)
    weights_to_convert: Url | None = field(name='Weights To Convert', default=None)
    weights_format: Literal['mmdet2', 'mmdet3', 'detectron', 'detectron2'] | None = (
        field(name='Weights Format', default=None)
    )
    weights_sha256: Text | None = field(name='Weights SHA256', default=None)
    weights_md5: Text | None = field(name='Weights MD5', default=None)
    weights_license: Text | None = field(name='Weights License', default=None)
    log: Url | None = field(name='Training Log', default=None)
    prepare: Text | None = field(name='Prepare', default=None)
    upstream_name: Name | None = field(name='Upstream Name', default=None)


class Metafile(_Entry):
    collections: list[CollectionEntry] = field(name='Collections')
    models: list[dict[str, Any]] = field(name='Models')


class ModelIndex(_Entry):
    listed: list[str] = field(name='Import')


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once; plain YAML keeps the last of its values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for (key, _), value in zip(node.value, keys, strict=True):
            if keys.count(value) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f'{value!r} stands twice', key.start_mark
                )
        return super().construct_mapping(node, deep)


def read(path: Path, kind: type[_Kind]) -> _Kind:
    """What a YAML file holds, of this kind.

    Raises:
        UserError: naming file and place, if it cannot be read or is not of the kind.
    """
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), _Loader)
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: is not UTF-8: {error.reason}') from error
    except (yaml.YAMLError, RecursionError) as error:
        problem = ' '.join(str(error).split())
        raise UserError(f'{path}: is not YAML: {problem}') from error
    return converted(content, kind, str(path))


def converted(content: Any, kind: type[_Kind], place: str) -> _Kind:
    """The typed form of what YAML holds.

    Raises:
        UserError: naming the place and the key, if it is not of the kind.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UserError(f'{place}: {error}') from error
