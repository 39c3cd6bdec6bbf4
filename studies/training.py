"""A process that trains one network after another, each on one CPU thread or a GPU."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import cv2
import torch

from studies.plan import Job, logs, results
from studies.records import write_record


def start_worker(work_dir: Path) -> None:
    """Prepare a new process: one thread, a log file, an end with its parent's."""
    log = logs(work_dir) / f'process-{os.getpid()}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'ab', buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Several run side by side; each would take every core.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def train(job: Job, work_dir: Path) -> tuple[dict[str, float], float]:
    """Train, write the record; returns the figures and the seconds it took."""
    start = time.monotonic()
    figures = _figures(job, work_dir)
    seconds = time.monotonic() - start
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else 'one CPU thread a run'
    write_record(results(work_dir), job, figures, seconds, device)
    return figures, seconds


def _figures(job: Job, work_dir: Path) -> dict[str, float]:
    case, log_dir = job.case, logs(work_dir) / job.name
    # Imported where needed: mmdet takes seconds, and the classifier uses none of it.
    if case.task == 'classifier':
        from studies.classifier import train_classifier

        return train_classifier(case.norm, case.batch, job.seed, job.size, log_dir)
    from studies.detector import train_detector

    return train_detector(case, job.seed, job.size, work_dir, log_dir)
