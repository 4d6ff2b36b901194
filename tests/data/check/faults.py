"""Data sets of small photos, each made to have one fault."""

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.data.check.check import Check
from vitreous.data.check.findings import COLUMNS, Finding


def picture(seed: int, size: tuple[int, int] = (60, 80), mode: str = "RGB") -> Image.Image:
    """A smooth random picture of (height, width); other seeds give clearly different ones."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make_photos(root: Path, classes=("ant", "bee"), splits=("train", "val", "test"), count: int = 12) -> Path:
    """A folder of good photos: root/SPLIT/CLASS/NUMBER.jpg, all of them different."""
    seed = 0
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                (folder / f"{number}.jpg").write_bytes(encoded(picture(seed), quality=92))
    return root


def copy(root: Path, source: str, target: str) -> None:
    """Copies a file of a folder to another place in it."""
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / source, root / target)


def only(result: Check, kind: str, severity: str) -> Finding:
    """The single finding of a check; its rows fit the columns of its kind."""
    assert [(finding.kind, finding.severity) for finding in result.findings] == [(kind, severity)], result.findings
    [found] = result.findings
    assert found.items
    assert {len(row) for row in found.items} == {len(COLUMNS[kind])}
    assert result.wise == (severity == "notice")
    return found


def images_of(finding: Finding) -> list[object]:
    column = COLUMNS[finding.kind].index("image")
    return [row[column] for row in finding.items]
