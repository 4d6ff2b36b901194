"""What the tests of layouts share."""

import pytest

from tests.data.sources.packing import content_of, pack, tree


@pytest.fixture(params=["folder", "archive"])
def make(request, tmp_path):
    """Writes images and other files to a new folder or archive, whose path it returns."""
    made = []

    def write(names, *others):
        path = tmp_path / f"photos{len(made)}"
        made.append(path)
        contents = {name: content_of(name) if name.endswith(("png", "jpg")) else b"x" for name in others}
        if request.param == "archive":
            return pack(path.with_suffix(".zip"), names, **contents)
        tree(path, names)
        for name, content in contents.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                (path / name).mkdir(exist_ok=True)
            else:
                (path / name).write_bytes(content)
        return path

    return write
