"""Images and videos through a detector into painted ones and a COCO file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from gn_det.atomic_files import AtomicLocalBackend
from gn_det.errors import UserError
from gn_det.inference.detector import Detector
from gn_det.inference.sources import (
    VIDEO_SUFFIXES,
    Video,
    find_files,
    open_video,
    read_image,
)

RESULTS_NAME = 'predictions.json'
PAINTED_NAME = 'painted'
_WRITABLE = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})


@dataclass
class Summary:
    """What a demo did.

    Attributes:
        painted: files written, one per image or video.
        skipped: files that are neither image nor video, or are damaged.
        objects: how many were found.
        results: the COCO file, or None if nothing worked.
    """

    painted: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    objects: int = 0
    results: Path | None = None


def run_demo(
    detector: Detector,
    source: str | Path,
    out_dir: str | Path,
    score_threshold: float = 0.3,
    batch_size: int = 1,
    progress: Callable[[Iterable, str, int], Iterable] = lambda items, name, total: (
        items
    ),
) -> Summary:
    """Detect in an image, in all of a folder, or in a video.

    Painted images and videos go to `out_dir/painted`, all objects to
    `out_dir/predictions.json`: images, categories and annotations as in COCO's files,
    each annotation with a score. A frame of a video is an image called
    `NAME#FRAME`, counted from 1. A file that cannot be read is named and passed over.

    Args:
        detector: of `load_detector`.
        source: an image, a folder or a video.
        out_dir: folder to write to, made if it is not there.
        score_threshold: what scores less is left out.
        batch_size: most images at once.
        progress: wraps an iterable, given a name and a length (0: unknown).

    Raises:
        UserError: if there is nothing at `source`, or painting would replace an input.
    """
    files = find_files(source)
    painted_dir = Path(out_dir) / PAINTED_NAME
    if painted_dir.resolve() in {file.resolve().parent for file in files}:
        raise UserError(
            f'{painted_dir} holds the input, and painted images would replace it; '
            'choose another --out-dir'
        )
    demo = _Demo(detector, painted_dir, score_threshold, batch_size)
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    images = [file for file in files if file not in videos]
    if images:
        demo.run_images(progress(images, 'images', len(images)))
    for file in videos:
        video = open_video(file)
        if video is None:
            demo.skip(file, 'no frame of it can be read as a video')
        else:
            demo.run_video(video, progress(video.read(), file.name, video.frames))
    return demo.finish(Path(out_dir) / RESULTS_NAME)


class _Demo:
    """One call of `run_demo`: where to write, and what has been found so far."""

    def __init__(
        self, detector: Detector, folder: Path, score_threshold: float, batch_size: int
    ) -> None:
        self.detector = detector
        self.folder = folder
        self.settings = dict(score_threshold=score_threshold, batch_size=batch_size)
        self.summary = Summary()
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def skip(self, file: Path, reason: str) -> None:
        self.summary.skipped.append(file)
        print_log(f'skipped {file}: {reason}', logger='current')

    def run_images(self, files: Iterable[Path]) -> None:
        read: list[Path] = []

        def readable() -> Iterator[np.ndarray]:
            for file in files:
                image = read_image(file)
                if image is None:
                    self.skip(file, 'not an image, or a damaged one')
                    continue
                read.append(file)
                yield image

        for index, image, found in self.detector.detect(readable(), **self.settings):
            file = read[index]
            self._add(file.name, image, found)
            name = file.name
            if file.suffix.lower() not in _WRITABLE:
                name += '.png'
            self._save(self.folder / name, self.detector.paint(image, found))

    def run_video(self, video: Video, frames: Iterable[np.ndarray]) -> None:
        """Same-sized frames come back in their order, ready to be written."""
        target = self.folder / f'{video.path.stem}.mp4'
        writer = None
        try:
            for index, image, found in self.detector.detect(frames, **self.settings):
                self._add(f'{video.path.name}#{index + 1:06d}', image, found)
                if writer is None:
                    writer = _open_writer(target, video.fps, image.shape)
                writer.write(self.detector.paint(image, found))
        finally:
            if writer is not None:
                writer.release()
        self.summary.painted.append(target)

    def _add(self, name: str, image: np.ndarray, found) -> None:
        image_id = len(self.images) + 1
        height, width = image.shape[:2]
        self.images.append(
            dict(id=image_id, file_name=name, height=height, width=width)
        )
        self.annotations += found.coco(image_id, len(self.annotations) + 1)

    def _save(self, path: Path, image: np.ndarray) -> None:
        whole, content = cv2.imencode(path.suffix, image)
        if not whole:
            raise UserError(f'OpenCV cannot write {path}')
        AtomicLocalBackend().put(content.tobytes(), path)
        self.summary.painted.append(path)

    def finish(self, path: Path) -> Summary:
        if not self.images:
            return self.summary
        categories = [
            dict(id=place, name=name)
            for place, name in enumerate(self.detector.classes, start=1)
        ]
        content = dict(
            images=self.images, categories=categories, annotations=self.annotations
        )
        AtomicLocalBackend().put(json.dumps(content).encode(), path)
        self.summary.objects = len(self.annotations)
        self.summary.results = path
        return self.summary


def _open_writer(path: Path, fps: float, shape: tuple[int, ...]) -> cv2.VideoWriter:
    os.makedirs(path.parent, exist_ok=True)
    height, width = shape[:2]
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, (width, height)
    )
    if not writer.isOpened():
        raise UserError(f'OpenCV cannot write a video to {path}')
    return writer
