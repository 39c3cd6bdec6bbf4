"""mmdet's `CocoMetric`, with figures for a model that detects nothing."""

from __future__ import annotations

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger


@METRICS.register_module()
class CocoAPMetric(CocoMetric):
    """COCO AP of boxes and masks; no detection at all is 0 AP.

    mmdet's metric returns no figures when the results are empty (a model early in
    training, a score threshold too high), and whatever reads `bbox_mAP` afterwards
    fails. Arguments and keys are those of `mmdet.evaluation.CocoMetric`.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP figures, 0–1, of all results collected over the validation set."""
        if self.format_only or any(len(pred['scores']) for _, pred in results):
            return super().compute_metrics(results)
        MMLogger.get_current_instance().warning(
            f'The model detected nothing in {len(results)} images: every AP is 0. '
            'It may be untrained, its checkpoint may not fit, or score_thr may be '
            'too high.'
        )
        return {key: 0.0 for metric in self.metrics for key in self._keys(metric)}

    def _keys(self, metric: str) -> list[str]:
        """The figures mmdet's metric would give for one kind of evaluation."""
        if metric == 'proposal_fast':
            return [f'AR@{num}' for num in self.proposal_nums]
        if metric == 'proposal':
            sizes = [f'AR_{size}@1000' for size in 'sml']
            return self.metric_items or ['AR@100', 'AR@300', 'AR@1000', *sizes]
        items = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
        return [f'{metric}_{item}' for item in self.metric_items or items]
