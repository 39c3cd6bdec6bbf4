"""mmdet's `CocoMetric`, evaluated by `coco_scores`, with results kept as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from gn_det.workbench.atomic_files import finish, partial_folder
from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.coco_scores import (
    EVALUATORS,
    IOU_THRESHOLDS,
    SCORES,
    Comparison,
    is_finite,
)
from gn_det.workbench.evaluation.kept_scores import (
    KeptScores,
    kept_scores,
    write_scores,
)
from gn_det.workbench.evaluation.kinds import KINDS
from gn_det.workbench.inputs.images import size_differs

_DEFAULT_ITEMS = (*SCORES[:6], 'AR@100')


@METRICS.register_module()
class CocoAPMetric(CocoMetric):
    """COCO AP of boxes and masks; no detection at all is 0 AP.

    Arguments and keys are those of `mmdet.evaluation.CocoMetric`, which hands the
    scores on rounded to three digits; these are not rounded. Boxes and masks are
    evaluated by COCO's protocol (`coco_scores`), whatever `proposal_nums` says; the
    AR at 100 detections comes with the APs, and `classwise` adds
    `bbox_mAP/<class>`. Where proposals are asked for, mmdet evaluates everything.

    mmdet's metric returns no scores when the results are empty (a model early in
    training, a score threshold too high), and whatever reads `bbox_mAP` afterwards
    fails.

    Args:
        evaluator: one of `coco_scores.EVALUATORS`; None takes the faster one.
    """

    def __init__(self, *args: Any, evaluator: str | None = None, **kwargs: Any) -> None:
        if evaluator not in (None, *EVALUATORS):
            raise UserError(
                f'evaluator={evaluator!r} is unknown; there are {", ".join(EVALUATORS)}'
            )
        super().__init__(*args, **kwargs)
        self.evaluator = evaluator
        unknown = set(self.metric_items or ()) - set(SCORES)
        if self._has_objects() and unknown:
            raise UserError(
                f'metric_items: {", ".join(sorted(unknown))} of {self.metrics} is '
                f'unknown; there are {", ".join(SCORES)}'
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch.

        Raises:
            UserError: if an image is not of the size that the annotation file says: its
                masks could not be compared.
        """
        known = self._coco_api.imgs if self._coco_api is not None else {}
        for sample in data_samples:
            image, found = known.get(sample['img_id']), sample.get('ori_shape')
            if image is None or found is None:
                continue
            said = image['height'], image['width']
            if tuple(found[:2]) != said:
                raise UserError(
                    f'image {image["file_name"]} (id {image["id"]!r}): '
                    f'{size_differs(tuple(found[:2]), said)}'
                )
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP, 0–1, of all results collected over the validation set."""
        detected = any(len(prediction['scores']) for _, prediction in results)
        if not detected:
            MMLogger.get_current_instance().warning(
                f'The model detected nothing in {len(results)} images: every AP is 0. '
                'It may be untrained, its checkpoint may not fit, or score_thr may be '
                'too high.'
            )
        if self._has_objects():
            return self._object_scores(results)
        if self.format_only or detected:
            return super().compute_metrics(results)
        return {key: 0.0 for metric in self.metrics for key in self._keys(metric)}

    def results2json(
        self, results: Sequence[dict], outfile_prefix: str
    ) -> dict[str, str]:
        """Write the detections to `PREFIX.bbox.json` and `PREFIX.segm.json`.

        The files are written beside their place and then renamed.
        """
        with partial_folder(f'{outfile_prefix}.results') as partial:
            written = super().results2json(results, os.path.join(partial, ''))
            # Boxes stand in it twice, as results and as proposals.
            names = {path: Path(path).name for path in written.values()}
            for path, name in names.items():
                finish(path, f'{outfile_prefix}{name}')
        return {kind: f'{outfile_prefix}{names[p]}' for kind, p in written.items()}

    def _has_objects(self) -> bool:
        return set(self.metrics) <= set(KINDS)

    def _object_scores(self, results: list) -> dict[str, float]:
        truth, predictions = zip(*results, strict=True)
        with self._prefix() as prefix:
            if self._coco_api is None:
                self._coco_api = COCO(self.gt_to_coco_json(truth, prefix))
            classes = self.dataset_meta['classes']
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
            files = self.results2json(predictions, prefix)
            if self.format_only:
                return {}
            scores: dict[str, float] = {}
            kept: dict[str, KeptScores] = {}
            for kind in self.metrics:
                kept[kind] = self._kept(kind, files)
                items = self.metric_items or _DEFAULT_ITEMS
                scores |= {f'{kind}_{item}': kept[kind].values[item] for item in items}
                if self.classwise:
                    for name, value in kept[kind].class_ap.items():
                        scores[f'{kind}_mAP/{name}'] = value
            write_scores(f'{prefix}.scores.json', kept)
            return scores

    @contextlib.contextmanager
    def _prefix(self) -> Iterator[str]:
        """Where results are written: `outfile_prefix`, or nowhere that lasts."""
        if self.outfile_prefix is not None:
            yield self.outfile_prefix
            return
        with tempfile.TemporaryDirectory() as folder:
            yield os.path.join(folder, 'results')

    def _kept(self, kind: str, files: dict[str, str]) -> KeptScores:
        if kind not in files:
            raise UserError(
                f'{kind} is to be evaluated and the model predicts no masks; add '
                '--cfg-options test_evaluator.metric=bbox'
            )
        # From the file, so that the file gives the same scores at any later time.
        results = json.loads(Path(files[kind]).read_text())
        broken = sum(not is_finite(result, kind) for result in results)
        if broken:
            MMLogger.get_current_instance().warning(
                f'{broken} of {len(results)} predictions ({kind}) have a score or a '
                'box that is not a finite number and are left out; the weights may '
                'have diverged'
            )
        thresholds = np.atleast_1d(np.array(self.iou_thrs, np.float64))
        if len(thresholds) == 10 and np.allclose(thresholds, IOU_THRESHOLDS):
            # To the last digit: 0.75 is looked for among them.
            thresholds = IOU_THRESHOLDS
        comparison = Comparison(self._coco_api.dataset, results, kind, self.cat_ids)
        scores = comparison.scores(self.evaluator, thresholds)
        return kept_scores(comparison, scores, thresholds)

    def _keys(self, metric: str) -> list[str]:
        """The scores mmdet's metric would give for one kind of evaluation."""
        if metric == 'proposal_fast':
            return [f'AR@{num}' for num in self.proposal_nums]
        if metric == 'proposal':
            sizes = [f'AR_{size}@1000' for size in 'sml']
            return self.metric_items or ['AR@100', 'AR@300', 'AR@1000', *sizes]
        return [f'{metric}_{item}' for item in self.metric_items or SCORES[:6]]
