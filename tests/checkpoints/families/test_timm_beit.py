"""Files of timm's Beit module: learned biases of the logits, equal to timm itself, exported unchanged."""

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import save_for_hf

from tests.checkpoints.peers import assert_same_function, assert_same_tensors, filled, images_of, through_a_file
from tests.model.models import small_model
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.shared.reading import Reading
from vitreous.checkpoints.families.timm.beit import TimmBeit
from vitreous.checkpoints.families.timm.family import TimmModules
from vitreous.checkpoints.load import load_checkpoint
from vitreous.support.errors import InputError

SMALL = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 7}
CASES = {
    "BEiT": {},
    "BEiT v2": {"architecture": "beitv2_base_patch16_224"},
    "class token": {"global_pool": "token"},
    "one table for all blocks": {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    "a position table": {"use_rel_pos_bias": False, "use_abs_pos_emb": True},
    "no positions": {"use_rel_pos_bias": False},
    "SwiGLU with an inner norm": {"swiglu_mlp": True, "scale_mlp": True},
    "no biases of q and v": {"qkv_bias": False},
    "features": {"num_classes": 0},
}


def peer(architecture="beit_base_patch16_224", **arguments):
    """A small model of timm's, every parameter at random."""
    return filled(timm.create_model(architecture, **(SMALL | arguments)))


@pytest.mark.parametrize("case", CASES)
def test_a_folder_of_timms_is_equal_and_exports_unchanged(case, tmp_path):
    theirs = peer(**CASES[case])
    save_for_hf(theirs, tmp_path / "theirs", safe_serialization=True)
    read = load_checkpoint(tmp_path / "theirs")
    assert read.metadata["family"] == "timm"
    assert_same_function(theirs, read.model, images_of(read.model.config))
    export_model(read, "timm", tmp_path / "out.safetensors")
    assert_same_tensors(load_file(tmp_path / "out.safetensors"), theirs.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_timm_builds_our_folder_by_its_config(case, tmp_path):
    theirs = peer(**CASES[case])
    save_for_hf(theirs, tmp_path / "theirs", safe_serialization=True)
    read = load_checkpoint(tmp_path / "theirs")
    export_model(read, "timm", tmp_path / "folder")
    again = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_function(again, theirs, images_of(read.model.config))
    ours = load_checkpoint(tmp_path / "folder")
    assert (ours.model.config, ours.preprocessing) == (read.model.config, read.preprocessing)


@pytest.mark.parametrize("arguments", [{}, {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}])
def test_keys_alone_decide(arguments, tmp_path):
    """The tables record the number of heads and, of a square, the image size."""
    theirs = peer(**(arguments | {"img_size": 32}))
    read = through_a_file(theirs.state_dict(), tmp_path)
    assert read.metadata["family"] == "timm"
    assert (read.model.config.num_heads, read.model.config.image_size) == (4, (32, 32))
    assert "num_heads" not in {guess.field for guess in read.report.guesses}
    assert "image_size" in {guess.field for guess in read.report.guesses}
    assert_same_function(theirs, read.model, images_of(read.model.config))


def test_a_grid_that_is_no_square_must_be_given(tmp_path):
    theirs = peer()
    with pytest.raises(InputError, match=r"38 biases is not that of a square grid; set image_size"):
        through_a_file(theirs.state_dict(), tmp_path)
    read = through_a_file(theirs.state_dict(), tmp_path, image_size=(32, 24))
    assert_same_function(theirs, read.model, images_of(read.model.config))
    with pytest.raises(InputError, match=r"position_embedding.biases has shape"):
        through_a_file(theirs.state_dict(), tmp_path, image_size=(32, 32))


def test_the_authors_files_have_indices_and_a_prefix(tmp_path):
    """Microsoft's files: under `model`, with the indices that timm computes."""
    theirs = peer(img_size=32)
    tensors = theirs.state_dict()
    index = theirs.blocks[0].attn.relative_position_index
    tensors |= {f"blocks.{i}.attn.relative_position_index": index for i in range(2)}
    torch.save({"model": tensors}, tmp_path / "m.pth")
    read = load_checkpoint(tmp_path / "m.pth")
    assert read.metadata["family"] == "timm"
    assert len(read.report.dropped) == 2
    assert "computed" in str(read.report)
    assert_same_function(theirs, read.model, images_of(read.model.config))


def test_two_kinds_of_positions_are_refused(tmp_path):
    for arguments, named in (
        ({"use_abs_pos_emb": True}, "a position table and bias tables"),
        ({"use_shared_rel_pos_bias": True}, "bias tables both in the blocks and for all"),
    ):
        with pytest.raises(InputError, match=named):
            through_a_file(peer(**arguments).state_dict(), tmp_path, image_size=(32, 24))


def test_every_architecture_is_read_as_timm_builds_it():
    names = timm.list_models(module="beit")
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name, depth=2)
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        family = TimmModules()
        reading = Reading(family.fields_from({"architecture": name}))
        family.read(shapes, reading)
        c, block = reading.config(), model.blocks[0]
        assert (c.num_heads, c.norm_eps, c.image_size) == (
            block.attn.num_heads,
            block.norm1.eps,
            model.patch_embed.img_size,
        )
        assert (c.pooling, c.norm_after_pooling, c.qkv_bias) == ("mean", True, "no_key")
        assert (c.position_embedding, c.position_site) == ("relative_bias", "every_layer")
    assert len(names) > 6


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"registers": 2}, "registers"),
        ({"rotary": "axial"}, "axial rotary positions"),
        ({"qkv_bias": "all"}, "biases of query, key and value"),
        ({"norm_eps": 1e-5}, "eps 1e-05"),
    ],
)
def test_unsupported_parts_are_named(changes, named):
    config = small_model("exact GELU").config.replace(qkv_bias="no_key")
    assert not TimmBeit().unsupported(config)
    assert named in TimmBeit().unsupported(config.replace(**changes))
