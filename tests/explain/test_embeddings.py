import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tests.model.models import SWITCHES, images_for, small_model
from vitreous.explain.embeddings import embedding_filters, patch_colors, position_similarity
from vitreous.support.errors import InputError

KINDS_WITHOUT_TABLE = {"none", "relative", "relative_bias"}
WITHOUT_TABLE = [s for s, changes in SWITCHES.items() if changes.get("position_embedding") in KINDS_WITHOUT_TABLE]


@pytest.mark.parametrize("switch", [s for s in SWITCHES if s not in WITHOUT_TABLE])
@pytest.mark.parametrize("grid", [None, (3, 5)])
def test_positions_are_compared_by_cosine(switch, grid):
    model = small_model(switch)
    rows, columns = grid or model.config.grid
    result = position_similarity(model, grid)
    assert result.shape == (rows, columns, rows, columns)
    table = model.position_embedding.table((rows, columns)).detach().numpy()[model.config.prefix_tokens :]
    a, b = table[columns + 2], table[2 * columns + 1]  # patches (1, 2) and (2, 1)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert result[1, 2, 2, 1].item() == pytest.approx(expected, abs=1e-5)
    assert result.std() > 0.01
    itself = result.flatten(2).flatten(0, 1).diagonal()
    torch.testing.assert_close(itself, torch.ones(rows * columns))


@pytest.mark.parametrize("switch", WITHOUT_TABLE)
def test_without_a_table_of_positions_there_is_no_similarity(switch):
    model = small_model(switch)
    why = {"none": "its position embedding is 'none'", "relative": "it has relative positions, inside attention"}
    why |= {"relative_bias": "it has relative biases, inside attention"}
    words = why[model.config.position_embedding]
    words = words if model.rotary is None else "its positions are rotary, which are computed"
    with pytest.raises(InputError, match=f"{words}; similarity needs the kinds learned"):
        position_similarity(model)


@pytest.mark.parametrize("switch", ["the paper's", "rectangles", "one channel", "five channels"])
def test_filters_are_the_principal_components_of_the_projection(switch):
    model = small_model(switch)
    result = embedding_filters(model, 5)
    c = model.config
    assert result.components.shape == (5, c.channels, *c.patch_size)
    pca = PCA(5, svd_solver="full").fit(model.patch_embedding.projection.weight.detach().double().numpy())
    np.testing.assert_allclose(result.explained, pca.explained_variance_ratio_, rtol=1e-5)
    products = result.components.flatten(1).double() @ torch.from_numpy(pca.components_).T
    np.testing.assert_allclose(products.abs(), np.eye(5), atol=1e-5)


@pytest.mark.parametrize("switch", ["hybrid", "hybrid root"])
def test_a_hybrid_shows_the_first_convolution_of_its_stem(switch):
    model = small_model(switch)
    result = embedding_filters(model)
    assert result.components.shape == (28, 3, 7, 7)
    weight = model.stem.conv.weight.detach().double().flatten(1).numpy()
    standard = (weight - weight.mean(1, keepdims=True)) / weight.std(1, keepdims=True)
    ratio = PCA(28, svd_solver="full").fit(standard).explained_variance_ratio_
    np.testing.assert_allclose(result.explained, ratio, rtol=1e-3)


def test_planted_filters_are_found_with_a_fixed_sign():
    model = small_model()
    pattern, other = torch.randn(2, 3, 8, 8).flatten(1)
    other -= pattern * (pattern @ other) / (pattern @ pattern)
    strength = torch.linspace(-1, 1, 48)[:, None]
    with torch.no_grad():
        weight = model.patch_embedding.projection.weight
        weight.copy_(7 + 3 * strength * pattern + (strength**2 - 0.3) * other)
    result = embedding_filters(model)
    assert len(result.explained) == 28
    assert result.explained[:2].sum() == pytest.approx(1, abs=1e-5)
    assert (result.explained.diff() <= 1e-9).all()
    cosine = torch.cosine_similarity(result.components[0].flatten(), pattern, dim=0)
    assert abs(cosine) > 0.999
    assert cosine.sign() == pattern[pattern.abs().argmax()].sign()
    with torch.no_grad():
        weight.neg_()
    assert torch.allclose(embedding_filters(model).components[:2], result.components[:2], atol=1e-5)


def test_no_more_components_than_filters():
    assert len(embedding_filters(small_model("one channel"), 1000).components) == 48
    with pytest.raises(InputError, match="0 filters cannot be shown"):
        embedding_filters(small_model(), 0)


def test_alike_patches_get_alike_colors():
    three, noise = torch.eye(3, 20) * 5, 0.01 * torch.randn(2, 6, 4, 20)
    kind = torch.arange(48).reshape(2, 6, 4) % 3
    result = patch_colors(three[kind] + noise)
    assert result.shape == (2, 6, 4, 3)
    assert result.min() == 0
    assert result.max() == 1
    means = torch.stack([result[kind == k].mean(dim=0) for k in range(3)])
    assert max(result[kind == k].std(dim=0)[:2].max() for k in range(3)) < 0.05  # the third holds only the noise
    assert torch.pdist(means[:, :2]).min() > 0.4


def test_colors_are_principal_components_between_percentiles():
    model = small_model()
    tokens = model.tokens(images_for(model.config, batch=20), [1])[0][:, 1:].detach().unflatten(1, (4, 4))
    result = patch_colors(tokens).flatten(0, 2).numpy()
    flat = tokens.flatten(0, 2).double().numpy()
    pca = PCA(3, svd_solver="full").fit(flat)
    signs = np.sign(pca.components_[np.arange(3), np.abs(pca.components_).argmax(axis=1)])
    values = pca.transform(flat) * signs
    low, high = np.percentile(values, [1, 99], axis=0)
    np.testing.assert_allclose(result, ((values - low) / (high - low)).clip(0, 1), atol=1e-5)
    assert ((result == 0).sum(axis=0) == 4).all()  # a hundredth of 320, rounded up


def test_colors_of_patches_without_differences_are_gray():
    assert patch_colors(torch.full((1, 2, 2, 8), 0.3)).unique().tolist() == [0.5]
