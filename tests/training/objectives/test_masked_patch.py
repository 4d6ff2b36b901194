"""Masked patch prediction: targets and shares against slow plain versions, and what is learned from them."""

import copy
import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from tests.model.models import SMALL, SWITCHES, small_config, small_model
from vitreous.data.sampling import batch_generator, masking_generator, sample_generator
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.training.objectives.masked_patch import (
    MaskedPatches,
    MaskedPatchPrediction,
    MaskedTarget,
    color_codes,
    corrupted_count,
    draw_masks,
)
from vitreous.training.optimization.step import train_step

TARGETS = get_args(MaskedTarget)
targets_of_each_kind = pytest.mark.parametrize("target", TARGETS)


def some_pixels(batch: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Bytes with patches of many colors: noise around a color of each 4x4 pixels."""
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (batch, channels, -(-height // 4), -(-width // 4)))
    coarse = colors.repeat(4, 2).repeat(4, 3)[:, :, :height, :width]
    return torch.from_numpy((coarse + rng.integers(-20, 21, coarse.shape)).clip(0, 255).astype(np.uint8))


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 127.5 - 1


def prediction(target: MaskedTarget = "mean_color", switch: str = "the paper's", fraction=0.5, **overrides):
    """A model and an objective, all parameters at random."""
    model = small_model(switch, mask_token=True, **overrides)
    objective = MaskedPatchPrediction(model.config, target, fraction)
    fill_at_random(objective, seed=3)
    return model, objective


def slow_codes(pixels: np.ndarray, patch: tuple[int, int], cells: int) -> list:
    """For each image, patch and cell the code, by exact fractions of the pixels' areas."""
    found = []
    for image in pixels:
        of_image = []
        for top in range(0, image.shape[1], patch[0]):
            for left in range(0, image.shape[2], patch[1]):
                part = image[:, top : top + patch[0], left : left + patch[1]].astype(int)
                of_image.append(
                    [slow_code(part, row, column, cells) for row in range(cells) for column in range(cells)]
                )
        found.append(of_image)
    return found


def slow_code(part: np.ndarray, row: int, column: int, cells: int) -> int:
    """The code of one cell; areas are counted in 1/cells of a pixel along each side."""

    def overlaps(cell: int, side: int) -> list[int]:
        ends = [(max(cell * side, i * cells), min((cell + 1) * side, (i + 1) * cells)) for i in range(side)]
        return [max(0, end - begin) for begin, end in ends]

    _, height, width = part.shape
    code = 0
    for channel in part:
        total = 0
        for i, down in enumerate(overlaps(row, height)):
            for j, along in enumerate(overlaps(column, width)):
                total += down * along * int(channel[i, j])
        code = code * 8 + total // (height * width * 32)
    return code


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", [(8, 8), (4, 12), (6, 6), (14, 14), (2, 2), (3, 5), (1, 1)])
@pytest.mark.parametrize("cells", [1, 4])
def test_colors_against_a_slow_version(channels, patch, cells):
    pixels = some_pixels(6, channels, 2 * patch[0], 3 * patch[1])
    codes = color_codes(pixels, patch, cells)
    assert codes.tolist() == slow_codes(pixels.numpy(), patch, cells)
    assert codes.shape == (6, 6, cells**2)
    assert codes.unique().numel() > 2
    assert codes.max() < 8**channels


def test_colors_at_the_border_of_a_level():
    """Means of exactly 64 and of a 1/196 below it, as floats could confuse them."""
    pixels = torch.full((1, 3, 14, 28), 64, dtype=torch.uint8)
    pixels[0, :, 0, 14] = 63
    pixels[0, 0, :, 14:] += 32  # red one level up
    assert color_codes(pixels, (14, 14), 1).tolist() == [[[2 * 64 + 2 * 8 + 2], [2 * 64 + 1 * 8 + 1]]]
    white = torch.full((1, 3, 14, 14), 255, dtype=torch.uint8)
    assert color_codes(white, (14, 14), 1).item() == 511
    assert color_codes(white, (14, 14), 4).tolist() == [[[511] * 16]]


def test_gray_has_eight_colors():
    pixels = torch.tensor([0, 31, 32, 100, 255], dtype=torch.uint8).repeat_interleave(8)
    pixels = pixels.expand(1, 1, 8, -1)
    assert color_codes(pixels, (8, 8), 1)[0, :, 0].tolist() == [0, 0, 1, 3, 7]


def test_the_masks_are_frozen():
    """Resumed runs and the results of every recipe depend on them."""
    corrupted, swapped, hidden = draw_masks(2, 8, 0.5, masking_generator(1, 2, 3))
    assert corrupted.astype(int).tolist() == [[1, 1, 0, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]]
    assert swapped.tolist() == [[0, 2, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert hidden.astype(int).tolist() == [[1, 0, 0, 0, 0, 0, 0, 1], [1, 1, 0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize(("patches", "fraction"), [(16, 0.5), (196, 0.5), (197, 0.15), (9, 0.5), (4, 0.01), (3, 0.9)])
def test_what_is_corrupted_against_a_slow_check(patches, fraction):
    corrupted, swapped, hidden = draw_masks(50, patches, fraction, np.random.default_rng(0))
    assert swapped.dtype == np.int64
    for image in range(50):
        assert corrupted[image].sum() == max(1, round(fraction * patches))
        for patch in range(patches):
            stays = swapped[image, patch] == patch
            assert 0 <= swapped[image, patch] < patches
            assert corrupted[image, patch] or (stays and not hidden[image, patch])
            assert stays or not hidden[image, patch]
    assert corrupted.all() or len({row.tobytes() for row in corrupted}) > 1


def test_the_shares_are_the_paper_s():
    corrupted, swapped, hidden = draw_masks(4000, 64, 0.5, np.random.default_rng(0))
    moved = swapped != np.arange(64)
    count = corrupted.sum()
    assert count == 4000 * 32
    assert abs(hidden.sum() / count - 0.8) < 0.005
    assert abs(moved.sum() / count - 0.1) < 0.004
    assert abs(corrupted.mean(0) - 0.5).max() < 0.04, "every place as often"


def test_all_other_patches_are_as_likely():
    _, swapped, _ = draw_masks(40_000, 5, 0.9, np.random.default_rng(0))
    for patch in range(5):
        counts = np.bincount(swapped[:, patch], minlength=5)
        others = np.delete(counts, patch)
        assert others.min() > 600
        assert others.max() / others.min() < 1.2


def test_an_only_patch_stays():
    corrupted, swapped, hidden = draw_masks(100, 1, 0.5, np.random.default_rng(0))
    assert corrupted.all()
    assert not swapped.any()
    assert 60 < hidden.sum() < 95


@targets_of_each_kind
@pytest.mark.parametrize("switch", ["the paper's", "rectangles", "one channel", "hybrid"])
def test_targets_against_a_slow_version(target, switch):
    _, objective = prediction(target, switch)
    config = small_config(switch)
    pixels = some_pixels(2, config.channels, *config.image_size)
    images = normalized(pixels)
    found = objective.targets(pixels, images, np.random.default_rng(4))
    masks = draw_masks(2, math.prod(config.grid), 0.5, np.random.default_rng(4))
    for tensor, mask in zip((found.corrupted, found.swapped, found.hidden), masks, strict=True):
        assert np.array_equal(tensor.numpy(), mask)
    height, width = config.token_stride
    if target == "pixels":
        for patch in range(math.prod(config.grid)):
            row, column = divmod(patch, config.grid[1])
            cut = images[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            assert torch.equal(found.expected[:, patch], cut.flatten(1))
    else:
        cells = 4 if target == "small_colors" else 1
        slow = torch.tensor(slow_codes(pixels.numpy(), config.token_stride, cells))
        assert torch.equal(found.expected, slow if cells == 4 else slow[:, :, 0])


@targets_of_each_kind
def test_the_verdict_against_a_slow_version(target):
    model, objective = prediction(target, "registers", fraction=0.3)
    pixels = some_pixels(3, 3, 32, 32)
    images = normalized(pixels)
    targets = objective.targets(pixels, images, np.random.default_rng(1))
    verdict = objective(model, images, targets)
    tokens = model.encoder(model.embed(images, targets.hidden, targets.swapped))
    output = objective.decoder(tokens[:, 5:])  # after the class token and four registers
    assert output.std(0).mean() > 0.1
    loss = correct = 0.0
    for image in range(3):
        losses, rights = [], []
        for patch in range(16):
            if not targets.corrupted[image, patch]:
                continue
            expected = targets.expected[image, patch]
            if target == "pixels":
                losses.append(((output[image, patch] - expected) ** 2).mean().item())
                rights.append(0.0)
                continue
            parts = output[image, patch].view(-1, 512)
            for logits, code in zip(parts, expected.reshape(-1), strict=True):
                losses.append(-logits.log_softmax(0)[code].item())
                rights.append(float(logits.argmax() == code))
        assert len(losses) == round(0.3 * 16) * (16 if target == "small_colors" else 1)
        loss += sum(losses) / len(losses)
        correct += sum(rights) / len(rights)
    assert verdict.loss.item() == pytest.approx(loss, rel=1e-4)
    assert verdict.correct.item() == pytest.approx(correct)


def test_a_partly_correct_patch_counts_in_part():
    model, objective = prediction("small_colors")
    pixels = some_pixels(2, 3, 32, 32)
    targets = objective.targets(pixels, normalized(pixels), np.random.default_rng(0))
    nn.init.zeros_(objective.decoder.weight)
    nn.init.zeros_(objective.decoder.bias)
    expected = torch.full_like(targets.expected, 7)
    expected[:, :, 3:] = 9
    objective.decoder.bias.data.view(16, 512)[:, 7] = 50.0  # predicts 7 everywhere, correct in 3 of 16 cells
    changed = MaskedPatches(targets.corrupted, targets.hidden, targets.swapped, expected)
    verdict = objective(model, normalized(pixels), changed)
    assert verdict.correct.item() == pytest.approx(2 * 3 / 16)
    assert verdict.loss.item() == pytest.approx(2 * 13 / 16 * 50, rel=1e-4)


def test_patches_that_are_not_corrupted_do_not_count():
    model, objective = prediction()
    pixels = some_pixels(2, 3, 32, 32)
    images = normalized(pixels)
    targets = objective.targets(pixels, images, np.random.default_rng(0))

    def loss(expected: torch.Tensor) -> float:
        changed = MaskedPatches(targets.corrupted, targets.hidden, targets.swapped, expected)
        return objective(model, images, changed).loss.item()

    elsewhere = torch.where(targets.corrupted, targets.expected, 0)
    assert loss(elsewhere) == loss(targets.expected)
    assert loss(torch.where(targets.corrupted, 0, targets.expected)) != loss(targets.expected)


def trained(model: VisionTransformer, objective: MaskedPatchPrediction, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=lr, weight_decay=0.0, fused=True)


@targets_of_each_kind
def test_one_batch_can_be_overfitted(target):
    """As it is first drawn. The paper's swapped and hidden patches stay the same here, so all can be learned."""
    model = VisionTransformer(small_config(mask_token=True, num_classes=0))
    objective = MaskedPatchPrediction(model.config, target, 0.5)
    pixels = some_pixels(4, 3, 32, 32)
    images = normalized(pixels)
    targets = objective.targets(pixels, images, masking_generator(0, 1, 0))
    first = objective(model, images, targets).loss.item() / 4
    optimizer = trained(model, objective, 5e-3)
    for _ in range(150):
        result = train_step(model, optimizer, objective, images, targets, lr=5e-3, clip_norm=1.0)
    loss = result.loss.item() / 4
    if target == "pixels":
        assert loss < 0.1 * first
        assert result.correct == 0
    else:
        assert 0.8 * math.log(512) < first < 1.5 * math.log(512)
        assert loss < 0.1
        assert result.correct == pytest.approx(4)


@pytest.mark.parametrize("switch", [name for name in SWITCHES if name != "five channels"])
def test_every_kind_of_model_learns_but_for_its_head(switch):
    model, objective = prediction("mean_color", switch)
    config = model.config
    pixels = some_pixels(3, config.channels, *config.image_size)
    images = normalized(pixels)
    targets = objective.targets(pixels, images, np.random.default_rng(0))
    verdict = objective(model.train(), images, targets)
    assert verdict.loss.isfinite()
    verdict.loss.backward()
    parameters = dict(objective.named_parameters()) | dict(model.named_parameters())
    for name, parameter in parameters.items():
        if name.startswith("head.") and not name.startswith("head.norm."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_another_image_size_runs():
    model, objective = prediction("small_colors")
    pixels = some_pixels(2, 3, 24, 40)
    targets = objective.targets(pixels, normalized(pixels), np.random.default_rng(0))
    assert targets.corrupted.sum(1).tolist() == [corrupted_count(15, 0.5)] * 2
    assert objective(model, normalized(pixels), targets).loss.isfinite()


@targets_of_each_kind
@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_targets_split_as_tensors_do(target, size):
    _, objective = prediction(target)
    pixels = some_pixels(5, 3, 32, 32)
    targets = objective.targets(pixels, normalized(pixels), np.random.default_rng(0))
    parts = targets.split(size)
    for name in ("corrupted", "hidden", "swapped", "expected"):
        whole = getattr(targets, name)
        assert [len(getattr(part, name)) for part in parts] == [len(part) for part in whole.split(size)]
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), whole)


@targets_of_each_kind
def test_gradients_of_micro_batches_add_up(target):
    """In float64, ten updates: the same weights to 1e-9."""
    model, objective = prediction(target)
    pixels = some_pixels(5, 3, 32, 32)
    images = normalized(pixels).double()
    whole, parts = ((copy.deepcopy(model).double(), copy.deepcopy(objective).double()) for _ in range(2))
    before = model.state_dict()
    for (network, learned), size in ((whole, None), (parts, 2)):
        optimizer = trained(network, learned, 1e-3)
        for step in range(10):
            targets = learned.targets(pixels, images, masking_generator(0, 1, step))
            train_step(network, optimizer, learned, images, targets, lr=1e-3, clip_norm=1.0, micro_batch=size)
    for one, other in zip(whole, parts, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert (whole[0].mask_token - before["mask_token"]).abs().max() > 1e-3


def test_autocast_stays_near_float32():
    model, objective = prediction("small_colors")
    pixels = some_pixels(3, 3, 32, 32)
    targets = objective.targets(pixels, normalized(pixels), np.random.default_rng(0))
    exact = objective(model, normalized(pixels), targets).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective(model, normalized(pixels), targets).loss
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs() / exact < 0.02


def test_masks_are_a_function_of_seed_epoch_and_batch():
    _, objective = prediction()
    pixels = some_pixels(6, 3, 32, 32)

    def drawn(*key: int) -> bytes:
        targets = objective.targets(pixels, normalized(pixels), masking_generator(*key))
        return targets.corrupted.numpy().tobytes() + targets.swapped.numpy().tobytes()

    torch.manual_seed(1)
    first = drawn(1, 2, 3)
    torch.manual_seed(2)
    assert drawn(1, 2, 3) == first
    assert len({drawn(1, 2, 3), drawn(2, 2, 3), drawn(1, 3, 3), drawn(1, 2, 4)}) == 4
    words = [make(1, 2, 3).bytes(16) for make in (masking_generator, batch_generator, sample_generator)]
    assert len(set(words)) == 3


def test_impossible_settings_are_rejected():
    with pytest.raises(ValueError, match="no mask token; set mask_token=True"):
        MaskedPatchPrediction(small_config(), "mean_color", 0.5)
    with pytest.raises(InputError, match=r"patch_dropout is 0\.25"):
        MaskedPatchPrediction(small_config(mask_token=True, patch_dropout=0.25), "mean_color", 0.5)


def test_the_decoder_is_as_wide_as_its_targets():
    config = small_config(mask_token=True)
    widths = [MaskedPatchPrediction(config, target, 0.5).decoder.out_features for target in TARGETS]
    assert widths == [512, 16 * 512, SMALL["patch_size"] ** 2 * 3]
    gray = MaskedPatchPrediction(small_config("one channel", mask_token=True), "mean_color", 0.5)
    assert gray.decoder.out_features == 8
    assert gray.decoder.weight.abs().max() > 0
