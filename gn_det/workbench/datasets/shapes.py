"""A generated instance-segmentation set of coloured shapes in COCO format.

Every image has a textured background and a handful of shapes that overlap and are cut
by the border. An object's truth is its *visible* part, as in COCO: a polygon (several
where an occluder splits it), its tight box and its area in pixels. Some images also
hold a crowd: a swarm of small shapes of one category annotated as one RLE region with
`iscrowd=1`. The same spec always gives the same files; each image has a random stream
of its own, so image i does not depend on how many come before it.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from gn_det.workbench.atomic_files import partial_folder

CATEGORIES = ('circle', 'square', 'triangle')
SPLITS = ('train', 'val')
STAMP = 'shapes.json'
# Raised whenever the drawing changes, so that an older set is made anew.
GENERATOR_VERSION = 1
_IMAGE_NAME = re.compile(r'\d{6,}\.jpg')
# An object less visible than this is not annotated (and is drawn over by others).
_MIN_VISIBLE_PIXELS = 24
# In radians; the less the shapes turn, the fewer images teach them.
_MAX_TILT = 0.35


@dataclass(frozen=True)
class ShapesSpec:
    """What to generate.

    Attributes:
        num_train, num_val: images per split.
        height, width: size of every image in pixels.
        max_objects: most objects in one image (at least one).
        crowd_fraction: share of images that hold a crowd region.
        seed: of all random choices.
    """

    num_train: int = 600
    num_val: int = 100
    height: int = 128
    width: int = 128
    max_objects: int = 4
    crowd_fraction: float = 0.06
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('num_train', 'num_val', 'max_objects'):
            if getattr(self, name) < 1:
                raise ValueError(f'shapes: {name} must be at least 1')
        if min(self.height, self.width) < 32:
            raise ValueError('shapes: height and width must be at least 32 pixels')
        if not 0 <= self.crowd_fraction <= 1:
            raise ValueError('shapes: crowd_fraction must lie between 0 and 1')


def generate_shapes(root: str | Path, spec: ShapesSpec, progress=iter) -> bool:
    """Write the set under `root`, or keep one of the same spec that is there.

    Layout: `train/*.jpg`, `val/*.jpg`, `annotations/instances_{train,val}.json` and
    the stamp `shapes.json`. The files are written beside `root` and moved into place
    when all are there, so an interrupted call leaves nothing half-made under `root`.

    Args:
        root: folder to make.
        spec: what to generate.
        progress: wraps the iterable of images, for example `tqdm.tqdm`.

    Returns:
        Whether files were written (False: an equal set was there already).

    Raises:
        FileExistsError: if `root` exists and is not a generated set, or a set of
            another spec lies there among other files; it is not touched.
    """
    root = Path(root)
    stamp = {'generator_version': GENERATOR_VERSION, **asdict(spec)}
    if root.exists() and any(root.iterdir()):
        found = read_stamp(root)
        if found == stamp:
            return False
        if found is None:
            raise FileExistsError(
                f'{root} exists and is not a generated set of shapes; choose another '
                'folder or remove it'
            )
        for path in sorted(root.rglob('*')):
            if path.is_file() and not _is_generated(path.relative_to(root)):
                raise FileExistsError(
                    f'{path} is not of the set of shapes that would be replaced; move '
                    'it away or choose another folder'
                )
    with partial_folder(root) as partial:
        _write_set(partial, spec, progress)
        (partial / STAMP).write_text(json.dumps(stamp, indent=1) + '\n')
        if root.exists():
            shutil.rmtree(root)
        partial.rename(root)
    return True


def read_stamp(root: str | Path) -> dict[str, int | float] | None:
    """Generator version and spec of the set under `root`, or None without one."""
    try:
        stamp = json.loads((Path(root) / STAMP).read_text())
    except (OSError, ValueError):
        return None
    is_stamp = isinstance(stamp, dict) and 'generator_version' in stamp
    return stamp if is_stamp else None


def _is_generated(path: Path) -> bool:
    """Whether `generate_shapes` writes a file of this name, relative to the root."""
    parts = path.parts
    if parts[0] in SPLITS:
        return len(parts) == 2 and _IMAGE_NAME.fullmatch(parts[1]) is not None
    return parts == (STAMP,) or parts in {
        ('annotations', f'instances_{split}.json') for split in SPLITS
    }


def _write_set(root: Path, spec: ShapesSpec, progress) -> None:
    splits = {'train': spec.num_train, 'val': spec.num_val}
    records = {split: ([], []) for split in splits}
    (root / 'annotations').mkdir(parents=True)
    for split in splits:
        (root / split).mkdir()
    todo = [(split, i) for split, count in splits.items() for i in range(count)]
    for split, index in progress(todo):
        rng = np.random.default_rng((spec.seed, SPLITS.index(split), index))
        image, objects = draw_image(rng, spec)
        images, annotations = records[split]
        image_id = index + 1
        file_name = f'{image_id:06d}.jpg'
        ok = cv2.imwrite(
            str(root / split / file_name), image, [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        if not ok:
            raise OSError(f'cannot write {root / split / file_name}')
        images.append(
            dict(id=image_id, file_name=file_name, height=spec.height, width=spec.width)
        )
        for fields in objects:
            annotations.append(
                dict(id=len(annotations) + 1, image_id=image_id, **fields)
            )
    categories = [
        dict(id=i + 1, name=name, supercategory='shape')
        for i, name in enumerate(CATEGORIES)
    ]
    for split, (images, annotations) in records.items():
        coco = dict(
            info=dict(description='generated shapes', version=str(GENERATOR_VERSION)),
            licenses=[],
            images=images,
            annotations=annotations,
            categories=categories,
        )
        path = root / 'annotations' / f'instances_{split}.json'
        path.write_text(json.dumps(coco))


def draw_image(
    rng: np.random.Generator, spec: ShapesSpec
) -> tuple[np.ndarray, list[dict]]:
    """One image and the COCO fields of its objects.

    Returns:
        The image, uint8 `(H, W, 3)` BGR, and a list of dicts with `category_id`,
        `segmentation`, `bbox` (x, y, w, h), `area` (pixels) and `iscrowd`.
    """
    image = _background(rng, spec)
    # The topmost object of each pixel: 0 is the background.
    owner = np.zeros((spec.height, spec.width), np.int32)
    drawn: list[tuple[int, bool]] = []

    def stamp_shape(mask: np.ndarray, color: np.ndarray, owner_id: int) -> None:
        shading = rng.normal(0, 10, image.shape).astype(np.float32)
        image[mask] = np.clip(color + shading[mask], 0, 255)
        owner[mask] = owner_id

    if rng.random() < spec.crowd_fraction:
        category = int(rng.integers(len(CATEGORIES)))
        drawn.append((category, True))
        for mask, color in _crowd(rng, spec, category):
            stamp_shape(mask, color, len(drawn))
    for _ in range(int(rng.integers(1, spec.max_objects + 1))):
        category = int(rng.integers(len(CATEGORIES)))
        size = min(spec.height, spec.width) * rng.uniform(0.1, 0.26)
        center = rng.uniform(0.08, 0.92, 2) * (spec.width, spec.height)
        mask = _shape_mask(rng, spec, category, center, size)
        drawn.append((category, False))
        stamp_shape(mask, _color(rng), len(drawn))

    objects = []
    for owner_id, (category, is_crowd) in enumerate(drawn, start=1):
        fields = _truth(owner == owner_id, is_crowd)
        if fields is not None:
            objects.append(dict(category_id=category + 1, **fields))
    return image.astype(np.uint8), objects


def _background(rng: np.random.Generator, spec: ShapesSpec) -> np.ndarray:
    """Muted clouds, stripes at a random angle and pixel noise, float32 BGR."""
    shape = (spec.height, spec.width)
    coarse = rng.uniform(60, 170, (*(max(2, s // 32) for s in shape), 3))
    # Muted, so that colour alone tells the shapes from most backgrounds.
    coarse = 0.35 * coarse + 0.65 * coarse.mean(axis=-1, keepdims=True)
    clouds = cv2.resize(
        coarse.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC
    )
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 24)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
    stripes = wave[..., None] * rng.uniform(0, 20)
    noise = rng.normal(0, 10, (*shape, 3))
    return np.clip(clouds + stripes + noise, 0, 255).astype(np.float32)


def _color(rng: np.random.Generator) -> np.ndarray:
    """A saturated colour, so that a shape stands out from most backgrounds."""
    hue = rng.integers(180)
    hsv = np.uint8([[[hue, rng.integers(150, 256), rng.integers(150, 256)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def _crowd(rng: np.random.Generator, spec: ShapesSpec, category: int):
    """The masks and colours of a swarm of small shapes around one point."""
    side = min(spec.height, spec.width)
    center = rng.uniform((0.2, 0.2), (0.8, 0.8)) * (spec.width, spec.height)
    for _ in range(int(rng.integers(8, 16))):
        position = center + rng.normal(0, 0.1 * side, 2)
        mask = _shape_mask(rng, spec, category, position, side * 0.045)
        yield mask, _color(rng)


def _shape_mask(
    rng: np.random.Generator,
    spec: ShapesSpec,
    category: int,
    center: np.ndarray,
    radius: float,
) -> np.ndarray:
    """The pixels of one whole shape, bool `(H, W)`; parts may lie outside."""
    mask = np.zeros((spec.height, spec.width), np.uint8)
    name = CATEGORIES[category]
    # Fixed-point coordinates keep sub-pixel positions.
    shift = 4
    if name == 'circle':
        scaled = np.round(np.asarray(center) * 2**shift).astype(int)
        cv2.circle(
            mask, tuple(map(int, scaled)), int(radius * 2**shift), 1, -1, shift=shift
        )
        return mask.astype(bool)
    # A square stands on a side and a triangle points up, each tilted a little.
    corners, upright = {'square': (4, np.pi / 4), 'triangle': (3, -np.pi / 2)}[name]
    tilt = rng.uniform(-_MAX_TILT, _MAX_TILT)
    angles = upright + tilt + np.arange(corners) * (2 * np.pi / corners)
    points = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.round(points * 2**shift).astype(np.int32)
    cv2.fillPoly(mask, [points], 1, shift=shift)
    return mask.astype(bool)


def _truth(visible: np.ndarray, is_crowd: bool) -> dict | None:
    """The COCO fields of a visible region, or None if too little of it is left."""
    if np.count_nonzero(visible) < _MIN_VISIBLE_PIXELS:
        return None
    mask = visible.astype(np.uint8)
    if is_crowd:
        # The region between the members belongs to the crowd as well.
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
        region = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
        return dict(
            segmentation=_uncompressed_rle(region), iscrowd=1, **_extent(region)
        )
    polygons = _polygons(mask)
    if not polygons:
        return None
    return dict(segmentation=polygons, iscrowd=0, **_extent(mask))


def _extent(mask: np.ndarray) -> dict:
    """The tight box (x, y, w, h) and the area in pixels."""
    rle = coco_mask.encode(np.asfortranarray(mask))
    return dict(
        bbox=[float(v) for v in coco_mask.toBbox(rle)],
        area=float(coco_mask.area(rle)),
    )


def _uncompressed_rle(mask: np.ndarray) -> dict:
    """COCO's crowd form: run lengths down the columns, the first run is zeros."""
    flat = mask.ravel(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat[0]:
        runs = [0, *runs]
    return dict(counts=runs, size=list(mask.shape))


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Outer contours of a mask along the pixels' outer edges.

    `cv2.findContours` walks through pixel *centres*, so a contour drawn as a COCO
    polygon would lose half a pixel on every side. Tracing the mask enlarged four times
    and mapping back puts the outline on the pixel edges.
    """
    scale = 4
    large = np.kron(mask, np.ones((scale, scale), np.uint8))
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        if cv2.contourArea(contour) < _MIN_VISIBLE_PIXELS / 2 * scale**2:
            continue
        contour = cv2.approxPolyDP(contour, 0.6 * scale, closed=True)
        if len(contour) < 3:
            continue
        points = (contour.reshape(-1, 2) + 0.5) / scale
        polygons.append([round(float(v), 2) for v in points.ravel()])
    return polygons
