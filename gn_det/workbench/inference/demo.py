"""Images and videos through a detector into painted ones and a COCO file."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError
from gn_det.workbench.inference.detector import Detections, Detector, category_ids
from gn_det.workbench.inference.sources import (
    VIDEO_SUFFIXES,
    Video,
    find_files,
    open_video,
)
from gn_det.workbench.inputs.images import Unreadable, check_name, read_image

RESULTS_NAME = 'predictions.json'
PAINTED_NAME = 'painted'
_VIDEO_SUFFIX, _IMAGE_SUFFIX = '.mp4', '.png'
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
    each annotation with a score. A frame of a video is an image called `NAME#FRAME`,
    counted from 1. A file that cannot be read, or that the test pipeline fails on, is
    named and passed over; of a video the frames, which are counted. What has been found
    by then is written however the call ends.

    A painted file is called as its input; where OpenCV writes no such format, with
    another suffix, before which the whole name is kept if two would be called the same.

    Args:
        detector: of `load_detector`.
        source: an image, a folder or a video.
        out_dir: folder to write to, made if it is not there.
        score_threshold: what scores less is left out.
        batch_size: most images at once.
        progress: wraps an iterable, given a name and a length (0: unknown).

    Raises:
        UserError: if there is nothing at `source`, or an output would replace an input.
    """
    files = check_places(source, out_dir)
    painted_dir = Path(out_dir) / PAINTED_NAME
    targets = {file: painted_dir / name for file, name in painted_names(files).items()}
    demo = _Demo(detector, targets, score_threshold, batch_size)
    videos = [file for file in files if _is_video(file)]
    images = [file for file in files if not _is_video(file)]
    try:
        if images:
            demo.run_images(progress(images, 'images', len(images)))
        for file in videos:
            try:
                check_name(file)
            except Unreadable as reason:
                demo.skip(file, str(reason))
                continue
            video = open_video(file)
            if video is None:
                demo.skip(file, 'no frame of it can be read as a video')
            else:
                demo.run_video(video, progress(video.read(), file.name, video.frames))
    finally:
        demo.finish(Path(out_dir) / RESULTS_NAME)
    return demo.summary


def check_places(source: str | Path, out_dir: str | Path) -> list[Path]:
    """The files of `source`, none of which lies where `run_demo` would write.

    Raises:
        UserError: if there are none, or they lie in `out_dir`.
    """
    files = find_files(source)
    try:
        check_name(out_dir)
    except Unreadable as reason:
        raise UserError(f'--out-dir {str(out_dir)!a}: {reason}') from reason
    folders = {file.resolve().parent for file in files}
    for place in (Path(out_dir), Path(out_dir) / PAINTED_NAME):
        if place.resolve() in folders:
            raise UserError(
                f'{place} holds the input, and what is written there would replace it; '
                'choose another --out-dir'
            )
    return files


def painted_names(files: Sequence[Path]) -> dict[Path, str]:
    """How the painting of each file of a folder is called, no two the same."""
    names: dict[Path, str] = {}
    for file in files:
        if file.suffix.lower() in (_VIDEO_SUFFIX, *_WRITABLE):
            names[file] = file.name
    taken = set(names.values())
    for file in files:
        if file not in names:
            names[file] = next(n for n in _other_names(file) if n not in taken)
            taken.add(names[file])
    return names


def _other_names(file: Path) -> Iterator[str]:
    suffix = _VIDEO_SUFFIX if _is_video(file) else _IMAGE_SUFFIX
    if _is_video(file):
        yield f'{file.stem}{suffix}'
    yield f'{file.name}{suffix}'
    yield from (f'{file.name}-{number}{suffix}' for number in itertools.count(2))


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES


class _Demo:
    """One call of `run_demo`: where to write, and what has been found so far."""

    def __init__(
        self,
        detector: Detector,
        targets: Mapping[Path, Path],
        score_threshold: float,
        batch_size: int,
    ) -> None:
        self.detector = detector
        self.targets = targets
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
                try:
                    image = read_image(file)
                except Unreadable as reason:
                    self.skip(file, str(reason))
                    continue
                read.append(file)
                yield image

        def failed(index: int, error: Exception) -> None:
            self.skip(read[index], _failure(error))

        for index, image, found in self._detect(readable(), failed):
            file = read[index]
            self._add(file.name, image, found)
            self._save(self.targets[file], self.detector.paint(image, found))

    def run_video(self, video: Video, frames: Iterable[np.ndarray]) -> None:
        """Same-sized frames come back in their order, ready to be written."""
        target = self.targets[video.path]
        writer = None
        failures: list[Exception] = []
        detected = self._detect(frames, lambda _, error: failures.append(error))
        try:
            for index, image, found in detected:
                self._add(f'{video.path.name}#{index + 1:06d}', image, found)
                if writer is None:
                    writer = _open_writer(target, video.fps, image.shape)
                writer.write(self.detector.paint(image, found))
        finally:
            if writer is not None:
                writer.release()
                self.summary.painted.append(target)
        if failures:
            count = f'{len(failures)} of its frames left out'
            self.skip(video.path, f'{count}: {_failure(failures[0])}')
        elif writer is None:
            self.skip(video.path, 'it has no frame')

    def _detect(
        self,
        images: Iterable[np.ndarray],
        on_failure: Callable[[int, Exception], None],
    ) -> Iterator[tuple[int, np.ndarray, Detections]]:
        return self.detector.detect(images, **self.settings, on_failure=on_failure)

    def _add(self, name: str, image: np.ndarray, found: Detections) -> None:
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
        with replacing(path) as partial:
            partial.write_bytes(content)
        self.summary.painted.append(path)

    def finish(self, path: Path) -> None:
        """Write what was found, if anything was looked at."""
        if not self.images:
            return
        classes = self.detector.classes
        categories = [
            dict(id=number, name=name)
            for number, name in zip(category_ids(classes), classes, strict=True)
        ]
        content = dict(
            images=self.images, categories=categories, annotations=self.annotations
        )
        with replacing(path) as partial:
            partial.write_text(json.dumps(content))
        self.summary.objects = len(self.annotations)
        self.summary.results = path


def _failure(error: Exception) -> str:
    reason = ' '.join(str(error).split()) or type(error).__name__
    return f'the test pipeline fails on it: {reason}'


def _open_writer(path: Path, fps: float, shape: tuple[int, ...]) -> cv2.VideoWriter:
    os.makedirs(path.parent, exist_ok=True)
    height, width = shape[:2]
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps, (width, height)
    )
    if not writer.isOpened():
        raise UserError(f'OpenCV cannot write a video to {path}')
    return writer
