"""An image broken after the check ends a run in one line that names it."""

from __future__ import annotations

import struct
import zlib

import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image
from torch.utils.data import DataLoader

from gn_det.workbench.inputs.image_loading import BrokenImage, LoadNamedImage
from gn_det.workbench.inputs.images import Unreadable, decoded_size, read_image


class Images:
    """A dataset of one image that the file says is 64 × 48."""

    def __init__(self, path) -> None:
        self.path = str(path)
        self.load = LoadNamedImage(LoadImageFromFile())

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[int, int]:
        info = dict(img_path=self.path, height=48, width=64)
        return self.load(info)['img'].shape[:2]


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares its size and has no pixels."""
    head = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunks = [struct.pack('>I', 13) + head + struct.pack('>I', zlib.crc32(head))]
    end = b'IEND'
    chunks.append(struct.pack('>I', 0) + end + struct.pack('>I', zlib.crc32(end)))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (None, 'there is no such file'),
        (b'', 'the file is empty'),
        (b'no image', 'not read: '),
        (png_header(50_000, 50_000), 'more than 178956970 pixels'),
        ((48, 64), 'it is 48 x 64 as it is decoded, and .* EXIF data may turn it'),
        ((64, 49), 'it is 64 x 49 as it is decoded'),
    ],
)
def test_the_file_is_named_in_one_line(tmp_path, workers, content, said):
    path = tmp_path / 'a.png'
    if isinstance(content, tuple):
        Image.new('RGB', content).save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BrokenImage, match=said) as error:
        next(iter(DataLoader(Images(path), num_workers=workers, collate_fn=list)))
    assert str(error.value).startswith(f'image {path}: ')
    assert '\n' not in str(error.value)
    assert error.value.on_any_rank


def test_a_right_image_is_loaded(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('RGB', (64, 48)).save(path)
    assert Images(path)[0] == (48, 64)


def test_a_name_that_is_not_utf8_never_reaches_opencv(tmp_path):
    path = tmp_path / 'a\udcff.png'
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    (tmp_path / 'a.png').rename(path)
    for read in (read_image, decoded_size):
        with pytest.raises(Unreadable, match='its name is not UTF-8; rename it'):
            read(path)
