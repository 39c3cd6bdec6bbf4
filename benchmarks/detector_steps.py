"""What a detector is timed at, a training step and inference, and the clock."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.detector_data import Batch, given_proposals
from benchmarks.timing import Quantiles
from gn_det.ops import recompute_activations

MODES = ('train', 'infer')


class Detector:
    """A detector on one batch: whole steps, and its trunk of backbone and neck alone.

    Args:
        model: from `benchmarks.detectors.build`, on the batch's device.
        batch: what it sees in each step.
        mode: 'train': forward, backward and SGD; 'infer': from images to boxes and
            masks.
        amp: under autocast to bfloat16.
        recompute: whether the model recomputes; it does so by itself in whole steps.
    """

    def __init__(
        self, model: nn.Module, batch: Batch, mode: str, *, amp: bool, recompute: bool
    ):
        self._model = model.train(mode == 'train')
        self._batch = batch
        self._training = mode == 'train'
        self._device = batch.images.device.type
        self._amp = amp
        self._recompute = recompute
        # So slow that a hundred steps change nothing that matters for time.
        self._optimizer = torch.optim.SGD(
            (p for p in model.parameters() if p.requires_grad),
            lr=1e-8,
            momentum=0.9,
            weight_decay=1e-4,
        )
        self.detections: float | None = None
        """Boxes an image that the last inference ended with."""

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device, torch.bfloat16, enabled=self._amp)

    def step(self) -> None:
        """One training step, or one inference."""
        model, batch = self._model, self._batch
        if not self._training:
            with torch.no_grad(), self._autocast(), given_proposals(model, batch):
                found = model(batch.images, batch.samples, mode='predict')
            boxes = sum(len(sample.pred_instances) for sample in found)
            self.detections = boxes / len(found)
            return
        with self._autocast(), given_proposals(model, batch):
            losses = model(batch.images, batch.samples, mode='loss')
            total, _ = model.parse_losses(losses)
        total.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def trunk(self) -> None:
        """Backbone and neck, in training with their backward pass."""
        if not self._training:
            with torch.no_grad(), self._autocast():
                self._model.extract_feat(self._batch.images)
            return
        region = (
            recompute_activations() if self._recompute else contextlib.nullcontext()
        )
        with self._autocast(), region:
            maps = self._model.extract_feat(self._batch.images)
        torch.autograd.backward(maps, [torch.ones_like(y) for y in maps])
        self._optimizer.zero_grad()


@dataclass(frozen=True)
class Times:
    """Milliseconds until the device was done, and until the call came back.

    `cpu` is the time of all threads of the process until then: what a loaded machine
    disturbs least.
    """

    whole: Quantiles
    host: Quantiles
    cpu: Quantiles
    samples: int


def time_calls(
    run: Callable[[], None],
    *,
    seconds: float,
    least: int = 5,
    most: int = 50,
    warm_up: int = 3,
) -> Times:
    """Times calls one by one, the device idle before each.

    Args:
        run: the call.
        seconds: about how long to go on.
        least: samples, however long they take.
        most: samples, however quick they are.
        warm_up: calls before the first sample.
    """
    for _ in range(warm_up):
        run()
    whole, host, cpu = [], [], []
    began = time.perf_counter()
    while len(whole) < least or (
        len(whole) < most and time.perf_counter() - began < seconds
    ):
        synchronize()
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        returned, returned_cpu = time.perf_counter(), time.process_time()
        synchronize()
        whole.append((time.perf_counter() - start) * 1e3)
        host.append((returned - start) * 1e3)
        cpu.append((returned_cpu - start_cpu) * 1e3)
    quantiles = (Quantiles.of(samples) for samples in (whole, host, cpu))
    return Times(*quantiles, len(whole))


def synchronize() -> None:
    """Waits for the device, where there is one to wait for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
