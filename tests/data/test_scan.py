from tests.data.sources.packing import png, tree
from vitreous.data import scan as scanning
from vitreous.data.scan import decoding_fault, header_fault, scan
from vitreous.data.sources.open import open_data


def test_all_images_are_looked_at_in_order(monkeypatch):
    monkeypatch.setattr(scanning, "AT_ONCE", 100)
    split = open_data("digits").train
    assert [*scan(split, lambda index: split.names[index])] == [*split.names]


def test_the_header_and_the_pixels_are_checked(tmp_path):
    folder = tree(tmp_path / "photos")
    (folder / "ant" / "0.png").write_bytes(b"no image")
    (folder / "bee" / "0.png").write_bytes(png()[:100])  # its header is good
    data = open_data(folder)
    for split in (data.train, data.validation):
        for place, name in enumerate(split.names):
            no_image, cut = name == "ant/0.png", name == "bee/0.png"
            assert (header_fault(split, place) is not None) == no_image
            assert (decoding_fault(split, place) is not None) == (no_image or cut)
