"""Operations equal torchvision's bits, have the papers' strengths, and depend on the generator alone."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from vitreous.data import photometric
from vitreous.data.photometric import (
    AUTO_AUGMENT,
    AUTO_AUGMENT_POLICY,
    ERASED_AREA,
    OPERATIONS,
    RANDAUGMENT,
    TRIVIAL_AUGMENT,
    auto_augment,
    color_jitter,
    cut_out,
    erased,
    rand_augment,
    trivial_augment,
)
from vitreous.data.sampling import sample_generator

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((96, 64))
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def affine(image, angle=0.0, translate=(0, 0), shear=(0.0, 0.0), center=None):
    gray = [128] * len(image.getbands())
    return functional.affine(image, angle, list(translate), 1.0, list(shear), fill=gray, center=center)


def slanted(slope):
    return math.degrees(math.atan(slope))


# Name, strength, the same by torchvision.
PEERS = [
    ("identity", 0.0, lambda image: image),
    ("autocontrast", 0.0, functional.autocontrast),
    ("equalize", 0.0, functional.equalize),
    ("invert", 0.0, functional.invert),
    ("rotate", 17.5, lambda image: functional.rotate(image, 17.5, fill=[128] * len(image.getbands()))),
    ("posterize", 3.9, lambda image: functional.posterize(image, 3)),
    ("solarize", 100.0, lambda image: functional.solarize(image, 100)),
    ("color", 1.7, lambda image: functional.adjust_saturation(image, 1.7)),
    ("contrast", 0.4, lambda image: functional.adjust_contrast(image, 0.4)),
    ("brightness", 1.3, lambda image: functional.adjust_brightness(image, 1.3)),
    ("sharpness", 2.8, lambda image: functional.adjust_sharpness(image, 2.8)),
    ("shear_x", 0.31, lambda image: affine(image, shear=(slanted(0.31), 0.0), center=[0, 0])),
    ("shear_y", -0.27, lambda image: affine(image, shear=(0.0, slanted(-0.27)), center=[0, 0])),
    ("translate_x", 9.6, lambda image: affine(image, translate=(-10, 0))),
    ("translate_y", -7.0, lambda image: affine(image, translate=(0, 7))),
]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("name", "strength", "theirs"), PEERS, ids=[row[0] for row in PEERS])
def test_an_operation_has_torchvisions_bits(name, strength, theirs, mode):
    image = PHOTO.point([20 + value // 2 for value in range(256)] * 3).convert(mode)  # so that autocontrast changes it
    ours = OPERATIONS[name](image, strength)
    assert ours.mode == mode
    assert np.array_equal(ours, theirs(image))
    assert name == "identity" or (name, mode) == ("color", "L") or not np.array_equal(ours, image)


def test_solarize_add_equals_a_hand_computed_image():
    image = Image.fromarray(np.array([[0, 100, 127, 128, 255]], dtype=np.uint8))
    assert np.array(OPERATIONS["solarize_add"](image, 110.0)).tolist() == [[110, 210, 237, 128, 255]]
    assert np.array(OPERATIONS["solarize_add"](image, 165.0)).tolist() == [[165, 255, 255, 128, 255]]
    assert np.array_equal(OPERATIONS["solarize_add"](PHOTO, 0.0), PHOTO)


def test_every_operation_is_tested_and_used():
    tested = {name for name, _, _ in PEERS} | {"solarize_add"}
    assert tested == {*OPERATIONS} == {*RANDAUGMENT} - {"cutout"} | {*TRIVIAL_AUGMENT} | {*AUTO_AUGMENT}


def test_posterize_keeps_at_least_one_bit():
    assert {*np.unique(OPERATIONS["posterize"](PHOTO, 0.0))} == {0, 128}
    assert np.array_equal(OPERATIONS["posterize"](PHOTO, 0.0), functional.posterize(PHOTO, 1))
    assert np.array_equal(OPERATIONS["posterize"](PHOTO, 9.0), PHOTO)


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("table", [RANDAUGMENT, TRIVIAL_AUGMENT])
def test_a_geometric_operation_of_magnitude_0_is_the_identity(name, table):
    for sign in (0.0, 0.9):
        assert np.array_equal(OPERATIONS[name](PHOTO, table[name].at(0.0, sign)), PHOTO)


@pytest.mark.parametrize(
    ("magnitude", "strengths"),
    [
        (0.0, {"rotate": 0, "posterize": 0, "solarize": 0, "color": 0.1, "shear_x": 0, "translate_y": 0}),
        (10.0, {"rotate": 30, "posterize": 4, "solarize": 256, "solarize_add": 110, "sharpness": 1.9, "shear_y": 0.3}),
        (15.0, {"rotate": 45, "posterize": 6, "contrast": 2.8, "shear_x": 0.45, "translate_x": 150}),
        (20.0, {"rotate": 60, "posterize": 8, "brightness": 3.7, "solarize_add": 220, "cutout": 80}),
    ],
)
def test_randaugment_has_the_authors_scale(magnitude, strengths):
    for name, strength in strengths.items():
        assert RANDAUGMENT[name].at(magnitude, 0.5) == pytest.approx(strength)
        mirrored = -strength if name in GEOMETRIC else strength
        assert RANDAUGMENT[name].at(magnitude, 0.4) == pytest.approx(mirrored)


def test_trivial_augment_has_torchvisions_scale():
    peer = v2.TrivialAugmentWide()._AUGMENTATION_SPACE
    names = {name.replace("_", "").lower(): name for name in TRIVIAL_AUGMENT}
    assert {*names} == {name.lower() for name in peer}
    for theirs, (magnitudes, signed) in peer.items():
        name = names[theirs.lower()]
        values = magnitudes(31, 224, 224)
        scale = TRIVIAL_AUGMENT[name]
        assert scale.signed == signed
        start = 1 if name in ("color", "contrast", "brightness", "sharpness") else 0
        whole = 255 if name == "solarize" else 1  # of which theirs is a share
        for level in range(31 if values is not None else 0):
            for draw, sign in ((0.1, -1 if signed else 1), (0.9, 1)):
                ours = scale.at(float(level), draw)
                ours = int(ours) if name == "posterize" else ours
                assert ours == pytest.approx(start + sign * whole * float(values[level]), abs=1e-4)


def test_auto_augment_has_torchvisions_policy():
    peer = v2.AutoAugment()._policies
    theirs = [tuple((name.lower(), probability, level or 0) for name, probability, level in pair) for pair in peer]
    assert [tuple((name.replace("_", ""), *rest) for name, *rest in pair) for pair in AUTO_AUGMENT_POLICY] == theirs


class Draws(np.random.Generator):
    """A generator that returns the given numbers, once."""

    def __init__(self, *numbers):
        super().__init__(np.random.PCG64(0))
        self.numbers = numbers

    def random(self, count):
        numbers, self.numbers = self.numbers, ()
        assert count == len(numbers)
        return np.array(numbers)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("signs", [(0.4, 0.6), (0.6, 0.4)])
@pytest.mark.parametrize("number", range(25))
def test_auto_augment_has_torchvisions_bits(number, signs, mode):
    peer, image = v2.AutoAugment(), PHOTO.convert(mode)
    for draws in ((0.0, 0.0), (0.0, 0.99), (0.99, 0.0), (0.5, 0.5), (0.99, 0.99)):
        theirs = image
        for (name, probability, level), draw, sign in zip(peer._policies[number], draws, signs, strict=True):
            if draw < probability:
                magnitudes, signed = peer._AUGMENTATION_SPACE[name]
                values = magnitudes(10, image.height, image.width)
                magnitude = 0.0 if values is None else round(float(values[level]), 6)  # 0.8 is 0.80000001 in float32
                magnitude *= -1 if signed and sign < 0.5 else 1
                fill = {Image.Image: [128] * len(image.getbands())}
                theirs = peer._apply_image_or_video_transform(
                    theirs, name, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill=fill
                )
        ours = auto_augment(image, Draws((number + 0.5) / 25, draws[0], signs[0], draws[1], signs[1]))
        assert ours.mode == mode
        assert np.array_equal(ours, theirs)
        assert draws != (0.0, 0.0) or not np.array_equal(ours, image)


def apply_all(image, generator):
    image = auto_augment(rand_augment(image, 2, 15.0, generator), generator)
    image = trivial_augment(image, generator)
    return color_jitter(image, 0.4, generator)


def test_the_same_generator_gives_the_same_bits_and_samples_differ():
    views = [np.array(apply_all(PHOTO, sample_generator(0, 0, index))) for index in range(40)]
    again = [np.array(apply_all(PHOTO, sample_generator(0, 0, index))) for index in range(40)]
    assert all(np.array_equal(a, b) for a, b in zip(views, again, strict=True))
    assert len({view.tobytes() for view in views}) >= 38  # two may be uniformly colored


def test_the_number_of_draws_depends_on_neither_image_nor_chance():
    for count, change in (
        (12, lambda image, generator: rand_augment(image, 3, 10.0, generator)),
        (5, auto_augment),
        (3, trivial_augment),
        (3, lambda image, generator: color_jitter(image, 1.0, generator)),
    ):
        for index in range(20):
            used, counted = sample_generator(0, 0, index), sample_generator(0, 0, index)
            change(PHOTO if index % 2 else PHOTO.convert("L").resize((3, 1)), used)
            counted.random(count)
            assert used.random() == counted.random()


@pytest.mark.parametrize(
    ("table", "change"),
    [
        (RANDAUGMENT, lambda image, generator: rand_augment(image, 1, 10.0, generator)),
        (TRIVIAL_AUGMENT, trivial_augment),
    ],
)
def test_every_operation_is_equally_likely(table, change, monkeypatch):
    names, used = list(table), []
    for name in {*names} - {"cutout"}:
        monkeypatch.setitem(photometric.OPERATIONS, name, lambda image, _, name=name: used.append(name) or image)
    monkeypatch.setattr(photometric, "cut_out", lambda image, *_: used.append("cutout") or image)
    generator = np.random.default_rng(0)
    for _ in range(200 * len(names)):
        change(PHOTO, generator)
    assert all(140 < used.count(name) < 260 for name in names)


def test_randaugment_translates_relative_to_the_side(monkeypatch):
    """By 10 / 224 of the side per unit of magnitude: half the pixels at half the authors' side."""
    moved = {"translate_x": set(), "translate_y": set()}
    for name, seen in moved.items():
        monkeypatch.setitem(photometric.OPERATIONS, name, lambda image, pixels, seen=seen: seen.add(pixels) or image)
    generator = np.random.default_rng(0)
    for _ in range(300):
        rand_augment(Image.new("RGB", (112, 448)), 1, 10.0, generator)
    assert moved == {"translate_x": {-50.0, 50.0}, "translate_y": {-200.0, 200.0}}


@pytest.mark.parametrize(("magnitude", "threshold"), [(0.0, 0), (5.0, 128), (10.0, 0), (15.0, 128), (20.0, 0)])
def test_randaugments_solarize_wraps_at_256(magnitude, threshold, monkeypatch):
    seen = set()
    monkeypatch.setitem(photometric.OPERATIONS, "solarize", lambda image, value: seen.add(value) or image)
    rand_augment(Image.new("RGB", (2, 2)), 100, magnitude, np.random.default_rng(0))
    assert seen == {threshold}


def test_cutout_equals_a_hand_computed_image():
    image = Image.new("L", (8, 6), 7)
    ours = np.array(cut_out(image, 0.25, 0.5, 0.5))  # rows 3 - 2 to 3 + 2, columns 4 - 2 to 4 + 2
    wanted = np.full((6, 8), 7)
    wanted[1:5, 2:6] = 128
    assert ours.tolist() == wanted.tolist()
    assert np.array(image).max() == 7  # the input is unchanged
    corner = np.array(cut_out(image, 0.25, 0.0, 0.99))
    wanted = np.full((6, 8), 7)
    wanted[:2, 5:] = 128
    assert corner.tolist() == wanted.tolist()
    assert np.array_equal(cut_out(PHOTO, 0.0, 0.3, 0.3), PHOTO)
    assert np.array(cut_out(PHOTO, 0.1, 0.3, 0.3))[19, 28].tolist() == [128] * 3


def test_randaugment_cuts_out_relative_to_the_side(monkeypatch):
    """At magnitude 10, 80 pixels of 224, around any pixel."""
    seen = []
    monkeypatch.setattr(photometric, "cut_out", lambda image, *numbers: seen.append(numbers) or image)
    rand_augment(Image.new("RGB", (2, 2)), 2000, 10.0, np.random.default_rng(0))
    shares, downs, rights = np.array(seen).T
    assert {*shares} == {40 / 224}
    for places in (downs, rights):
        assert places.min() < 0.1
        assert places.max() > 0.9
    assert abs(np.corrcoef(downs, rights)[0, 1]) < 0.3


def test_color_jitter_equals_a_hand_computed_image():
    for index in range(5):
        draws = sample_generator(0, 0, index).random(3)
        brightness, contrast, saturation = (0.6 + 0.8 * draw for draw in draws)
        theirs = functional.adjust_brightness(PHOTO, brightness)
        theirs = functional.adjust_saturation(functional.adjust_contrast(theirs, contrast), saturation)
        ours = np.array(color_jitter(PHOTO, 0.4, sample_generator(0, 0, index)))
        assert np.array_equal(ours, theirs)
        assert not np.array_equal(ours, PHOTO)


def test_a_box_of_the_configured_share_is_erased():
    view = torch.full((3, 40, 60), 7, dtype=torch.uint8)
    shares = []
    for index in range(400):
        result = erased(view, 1.0, sample_generator(0, 0, index))
        changed = (result != view).any(0)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        if len(rows):
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.float().mean() > 0.95  # one box of noise; one byte in 256 is unchanged by chance
            shares.append(box.numel() / (40 * 60))
    assert len(shares) > 390  # one of the tries nearly always fits
    assert min(shares) >= ERASED_AREA[0] * 0.9
    assert max(shares) <= ERASED_AREA[1] * 1.05
    assert 0.17 < np.mean(shares) < 0.21  # below the middle of the range, since large narrow boxes do not fit
    assert (view == 7).all()  # the input is unchanged


def test_erasing_has_its_probability_and_always_draws_the_same_number():
    view = torch.full((1, 16, 16), 7, dtype=torch.uint8)
    rest = []
    for probability in (0.0, 0.25, 1.0):
        generator, count = sample_generator(0, 0, 0), 0
        for _ in range(400):
            count += not torch.equal(erased(view, probability, generator), view)
        rest.append(generator.random())
        assert abs(count - 400 * probability) < 40
    assert rest[0] == rest[1] == rest[2]


def test_erased_bytes_are_noise():
    view = torch.zeros(3, 64, 64, dtype=torch.uint8)
    values = torch.cat([(v := erased(view, 1.0, sample_generator(0, 0, i)))[v > 0] for i in range(20)]).float()
    assert abs(values.mean() - 128) < 2
    assert abs(values.std() - 73.6) < 2


def test_the_smallest_image_works():
    for mode in ("RGB", "L"):
        for index in range(60):
            assert apply_all(Image.new(mode, (1, 1)), sample_generator(0, 0, index)).size == (1, 1)
    assert erased(torch.zeros(1, 1, 1, dtype=torch.uint8), 1.0, sample_generator(0, 0, 0)).shape == (1, 1, 1)
