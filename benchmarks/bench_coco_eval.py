"""Time COCO evaluation by both evaluators on a generated set of the size of val2017.

    python benchmarks/bench_coco_eval.py [--images 5000]

Objects and detections are drawn from a seed: about 7.3 objects an image of 80 classes,
of which 1 in 80 is a crowd, and 100 detections an image, two thirds of them near an
object. Masks are ellipses as compressed RLE. The scores by faster-coco-eval, as the
metric has them, and those by pycocotools, as its authors use it, are compared before a
time is written to benchmarks/results/. `seconds` is what a clock on the wall says,
`cpu_seconds` the time of all threads, which other load disturbs less.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arguments import positive
from benchmarks.results import RESULTS, Environment, rounded, write_rows
from gn_det.workbench.evaluation.coco_scores import EVALUATORS, SCORES, Comparison
from gn_det.workbench.evaluation.kinds import KINDS

HEIGHT, WIDTH, CLASSES = 480, 640, 80
OBJECTS_PER_IMAGE, DETECTIONS_PER_IMAGE = 7.3, 100
CROWD_FRACTION = 1 / 80
# Two correct programs differ by rounding only.
AGREEMENT = 1e-12


def ellipse(box: np.ndarray) -> dict:
    """The ellipse in a box (x, y, width, height), as compressed RLE."""
    x, y, width, height = box
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = np.stack(
        [x + width * (1 + np.cos(angle)) / 2, y + height * (1 + np.sin(angle)) / 2],
        axis=1,
    )
    (encoded,) = coco_mask.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH)
    return dict(size=encoded['size'], counts=encoded['counts'].decode())


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (x, y, width, height) inside the image, sides from 8 to 400 pixels."""
    sides = np.exp(random.uniform(np.log(8), np.log(400), (count, 2)))
    return np.hstack([random.uniform(0, 1, (count, 2)) * (WIDTH, HEIGHT) * 0.6, sides])


def generate(images: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """Annotations and detections."""
    random = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in tqdm(range(1, images + 1), desc='images', disable=None):
        objects = random_boxes(random, random.poisson(OBJECTS_PER_IMAGE))
        classes = random.integers(1, CLASSES + 1, len(objects))
        for box, label in zip(objects, classes, strict=True):
            outline = ellipse(box)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(label),
                    bbox=box.tolist(),
                    area=float(coco_mask.area(outline)),
                    iscrowd=int(random.random() < CROWD_FRACTION),
                    segmentation=outline,
                )
            )
        found = random_boxes(random, DETECTIONS_PER_IMAGE)
        labels = random.integers(1, CLASSES + 1, DETECTIONS_PER_IMAGE)
        near = np.flatnonzero(random.random(DETECTIONS_PER_IMAGE) < 2 / 3)
        if len(objects):
            of = random.integers(0, len(objects), len(near))
            found[near] = objects[of] * random.normal(1, 0.08, (len(near), 4))
            labels[near] = classes[of]
        for box, label, score in zip(
            np.abs(found), labels, random.random(DETECTIONS_PER_IMAGE), strict=True
        ):
            results.append(
                dict(
                    image_id=image_id,
                    category_id=int(label),
                    bbox=box.tolist(),
                    score=float(score),
                    segmentation=ellipse(box),
                )
            )
    truth = dict(
        images=[dict(id=i, height=HEIGHT, width=WIDTH) for i in range(1, images + 1)],
        categories=[dict(id=i, name=str(i)) for i in range(1, CLASSES + 1)],
        annotations=annotations,
    )
    return truth, results


def by_metric(truth: dict, results: list[dict], kind: str) -> list[float]:
    return list(Comparison(truth, results, kind).scores().values.values())


def by_pycocotools(truth: dict, results: list[dict], kind: str) -> list[float]:
    unwanted = {one.field for name, one in KINDS.items() if name != kind}
    kept = [{k: v for k, v in one.items() if k not in unwanted} for one in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(kept), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--images', type=positive, default=5000, help='default %(default)s'
    )
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    truth, results = generate(args.images, args.seed)
    here = Environment.here()
    print(f'{len(truth["annotations"])} objects, {len(results)} detections')
    rows = []
    for kind in ('bbox', 'segm'):
        scores = {}
        ways = (by_metric, by_pycocotools)
        for evaluator, way in zip(EVALUATORS, ways, strict=True):
            start, cpu_start = time.perf_counter(), time.process_time()
            scores[evaluator] = np.array(way(truth, results, kind))
            seconds = time.perf_counter() - start
            cpu_seconds = time.process_time() - cpu_start
            rows.append(
                dict(
                    kind=kind,
                    evaluator=evaluator,
                    version=version(evaluator),
                    images=args.images,
                    objects=len(truth['annotations']),
                    detections=len(results),
                    seconds=rounded(seconds),
                    cpu_seconds=rounded(cpu_seconds),
                    mAP=rounded(scores[evaluator][SCORES.index('mAP')]),
                    machine=platform.machine(),
                    numpy=version('numpy'),
                    python=here.python,
                    commit=here.commit,
                    date=here.date,
                )
            )
            print(f'{kind} {evaluator}: {seconds:.1f} s, CPU {cpu_seconds:.1f} s')
        fast, slow = (scores[evaluator] for evaluator in EVALUATORS)
        difference = float(np.abs(fast - slow).max())
        print(f'{kind}: scores differ by at most {difference:.1e}')
        if difference > AGREEMENT:
            raise SystemExit(f'{kind}: the evaluators disagree; no times are written')
    path = RESULTS / f'coco-eval_cpu_{args.images}-images.csv'
    write_rows(path, list(rows[0]), rows)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
