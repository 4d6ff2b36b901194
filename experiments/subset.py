"""A part of a folder of photos, chosen by name alone, so that everyone gets the same one."""

import os
import shutil
from hashlib import blake2b
from pathlib import Path

from vitreous.data.decoding.images import is_image_name


def subset(source: Path, target: Path, each: int) -> None:
    """Copies part of each class of train/, the photos with the smallest hashes of their names, and all of test/.

    Args:
        source: with train/ and test/, and a subfolder for each class.
        target: to be made.
        each: photos of a class of train/.
    """
    for folder in sorted((source / "train").iterdir()):
        names = sorted(path.name for path in folder.iterdir() if is_image_name(path.name))
        chosen = sorted(names, key=lambda name: blake2b(os.fsencode(name), digest_size=8).digest())[:each]
        made = target / "train" / folder.name
        made.mkdir(parents=True)
        for name in chosen:
            shutil.copyfile(folder / name, made / name)
    shutil.copytree(source / "test", target / "test", copy_function=shutil.copyfile)
