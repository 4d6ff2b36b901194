"""transformers' image models beside ViT, DeiT, CLIP and SigLIP: equal to transformers itself, in both directions."""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.checkpoints.families.test_huggingface import TEXT, loaded
from tests.checkpoints.peers import assert_same_function, assert_same_tensors, filled, images_of
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.load import load_checkpoint
from vitreous.support.errors import InputError

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TINY |= {"image_size": 32, "patch_size": 8, "num_labels": 7}
SILU = {"hidden_act": "silu", "use_gated_mlp": True}
RELATIVE, SHARED = {"use_relative_position_bias": True}, {"use_shared_relative_position_bias": True}
CLASS_TOKEN, TABLE = {"use_mean_pooling": False}, {"use_absolute_position_embeddings": True}
NORMS = {"norm_type": "rms_norm", "use_qk_norm": True}
UNBIASED = {"query_bias": False, "value_bias": False}
Build = Callable[[], nn.Module]


@pytest.fixture(autouse=True)
def quiet():
    """Without transformers' progress bars and warnings on stderr."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def single(name: str, kind: str, /, *, pooler: bool | None = None, **changes: Any) -> Build:
    """A class with a config of its own."""
    arguments = {} if pooler is None else {"add_pooling_layer": pooler}
    return lambda: getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**(TINY | changes)), **arguments)


def tower(name: str, kind: str, **changes: Any) -> Build:
    """A class with the config of an image-text model."""

    def build() -> nn.Module:
        vision = getattr(transformers, f"{kind}VisionConfig")(**(TINY | changes)).to_dict()
        config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=TEXT, num_labels=7)
        return getattr(transformers, name)(config)

    return build


class Case(NamedTuple):
    """A model of transformers.

    Args:
        build: the model.
        written: the class that our config.json names; "" if no class of transformers holds the model.
        other: whether transformers computes other image sizes with the same call.
        guesses: fields that are guessed, beside the preprocessing.
    """

    build: Build
    written: str
    other: bool = True
    guesses: tuple[str, ...] = ()


POOLED = ("pooling",)
CASES = {
    "MAE": Case(single("ViTMAEModel", "ViTMAE", mask_ratio=0.0), "ViTModel", other=False),
    "MSN": Case(single("ViTMSNModel", "ViTMSN"), "ViTModel", other=False),
    "MSN, classes": Case(single("ViTMSNForImageClassification", "ViTMSN"), "ViTForImageClassification", other=False),
    "ViT, no biases": Case(single("ViTForImageClassification", "ViT", qkv_bias=False), "ViTForImageClassification"),
    "BEiT": Case(single("BeitModel", "Beit", **RELATIVE), "BeitModel"),
    "BEiT, class token": Case(single("BeitModel", "Beit", **RELATIVE, **CLASS_TOKEN), "BeitModel"),
    "BEiT, classes": Case(
        single("BeitForImageClassification", "Beit", **SHARED, use_mask_token=True), "BeitForImageClassification"
    ),
    "BEiT, table": Case(
        single("BeitForImageClassification", "Beit", layer_scale_init_value=0.0, **TABLE, **CLASS_TOKEN),
        "BeitForImageClassification",
    ),
    "BEiT, no positions": Case(single("BeitForImageClassification", "Beit"), "BeitForImageClassification"),
    "data2vec": Case(single("Data2VecVisionModel", "Data2VecVision", **RELATIVE), "Data2VecVisionModel", True, POOLED),
    "data2vec, pooler": Case(single("Data2VecVisionModel", "Data2VecVision", pooler=True, **SHARED), "BeitModel"),
    "data2vec, classes": Case(
        single("Data2VecVisionForImageClassification", "Data2VecVision", **RELATIVE), "BeitForImageClassification"
    ),
    "DINOv2": Case(single("Dinov2Model", "Dinov2"), "Dinov2Model"),
    "DINOv2, classes": Case(
        single("Dinov2ForImageClassification", "Dinov2", qkv_bias=False), "Dinov2ForImageClassification"
    ),
    "DINOv2, SwiGLU": Case(
        single("Dinov2ForImageClassification", "Dinov2", use_swiglu_ffn=True, use_mask_token=False),
        "Dinov2ForImageClassification",
    ),
    "DINOv2, registers": Case(
        single("Dinov2WithRegistersModel", "Dinov2WithRegisters", use_swiglu_ffn=True), "Dinov2WithRegistersModel"
    ),
    "DINOv2, registers, classes": Case(
        single("Dinov2WithRegistersForImageClassification", "Dinov2WithRegisters"),
        "Dinov2WithRegistersForImageClassification",
    ),
    "DINOv3": Case(single("DINOv3ViTModel", "DINOv3ViT", num_register_tokens=4), "DINOv3ViTModel"),
    "DINOv3, no registers": Case(single("DINOv3ViTModel", "DINOv3ViT", image_size=[32, 48]), "DINOv3ViTModel"),
    "DINOv3, all biases": Case(single("DINOv3ViTModel", "DINOv3ViT", key_bias=True), "DINOv3ViTModel"),
    "DINOv3, gated": Case(
        single("DINOv3ViTModel", "DINOv3ViT", num_register_tokens=2, **SILU, **UNBIASED), "DINOv3ViTModel"
    ),
    "CLIP, classes": Case(tower("CLIPForImageClassification", "CLIP"), "CLIPForImageClassification"),
    "MLCD": Case(single("MLCDVisionModel", "MLCDVision"), "MLCDVisionModel"),
    "MetaCLIP 2": Case(single("MetaClip2VisionModel", "MetaClip2Vision"), "CLIPVisionModel"),
    "SigLIP 2": Case(single("Siglip2VisionModel", "Siglip2Vision", num_patches=16), "SiglipVisionModel"),
    "SigLIP 2, classes": Case(
        tower("Siglip2ForImageClassification", "Siglip2", num_patches=16), "SiglipForImageClassification"
    ),
    "I-JEPA": Case(single("IJepaModel", "IJepa"), "IJepaModel", True, POOLED),
    "I-JEPA, classes": Case(single("IJepaForImageClassification", "IJepa"), "IJepaForImageClassification"),
    "InternViT": Case(single("InternVLVisionModel", "InternVLVision"), "InternVLVisionModel", True, POOLED),
    "InternViT, norms": Case(
        single("InternVLVisionModel", "InternVLVision", **NORMS), "InternVLVisionModel", True, POOLED
    ),
    "InternViT, biases": Case(
        single("InternVLVisionModel", "InternVLVision", attention_bias=True, use_mask_token=True),
        *("InternVLVisionModel", True, POOLED),
    ),
    "InternViT, class token": Case(
        single("InternVLVisionModel", "InternVLVision", attention_bias=True, **CLASS_TOKEN), "Dinov2Model"
    ),
    "AIMv2": Case(
        single("Aimv2VisionModel", "Aimv2Vision", use_head=False), "Aimv2VisionModel", other=False, guesses=POOLED
    ),
    "AIMv2, native": Case(
        single("Aimv2VisionModel", "Aimv2Vision", use_head=False, is_native=True), "Aimv2VisionModel", True, POOLED
    ),
    "AIMv2, biases": Case(
        single("Aimv2VisionModel", "Aimv2Vision", use_head=False, qkv_bias=True, mlp_bias=True),
        *("Aimv2VisionModel", False, POOLED),
    ),
    "AIMv2, head": Case(single("Aimv2VisionModel", "Aimv2Vision", is_native=True), ""),
    "AIMv2, head, biases": Case(
        single("Aimv2VisionModel", "Aimv2Vision", is_native=True, qkv_bias=True, mlp_bias=True), ""
    ),
}


def outputs(model: nn.Module, *, interpolate: bool = False) -> Callable[[Tensor], Tensor]:
    """A transformers model's logits, pooled output, or the token or mean that we document."""
    named = type(model).__name__

    def answer(images: Tensor) -> Tensor:
        arguments: dict[str, Any] = {"pixel_values": images}
        if named.startswith("Siglip2"):
            arguments = packed(images, patch=8)
        elif interpolate and named.startswith(("ViT", "CLIP", "MetaClip2", "Siglip", "IJepa")):
            arguments["interpolate_pos_encoding"] = True
        output = model(**arguments)
        pooled = [output[key] for key in ("logits", "pooler_output") if output.get(key) is not None]
        if pooled:
            return pooled[0]
        tokens = output.last_hidden_state
        if named.startswith(("Data2Vec", "InternVL")) and model.config.use_mean_pooling:
            return tokens[:, 1:].mean(dim=1)
        return tokens.mean(dim=1) if named.startswith(("IJepa", "Aimv2")) else tokens[:, 0]

    return answer


def packed(images: Tensor, patch: int) -> dict[str, Tensor]:
    """Images as SigLIP 2 takes them: rows of patches, with channels last."""
    batch, _, height, width = images.shape
    rows, columns = height // patch, width // patch
    cut = images.unflatten(2, (rows, patch)).unflatten(4, (columns, patch))  # batch channels rows p columns p
    flat = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    mask = torch.ones(batch, rows * columns, dtype=torch.int32)
    return {
        "pixel_values": flat,
        "pixel_attention_mask": mask,
        "spatial_shapes": torch.tensor([[rows, columns]] * batch),
    }


def saved(case: str, folder) -> nn.Module:
    """The case with random weights, and its folder."""
    model = filled(CASES[case].build())
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_folder_gives_transformers_outputs_at_its_size_and_others(case, tmp_path):
    theirs = saved(case, tmp_path)
    read = load_checkpoint(tmp_path)
    assert read.metadata["family"] == "huggingface"
    guesses = tuple(guess.field for guess in read.report.guesses if guess.field != "preprocessing")
    assert guesses == CASES[case].guesses
    images = images_of(read.model.config)
    assert_same_function(outputs(theirs), read.model, images)
    if CASES[case].other:
        larger = torch.randn(3, 3, 48, 40, generator=torch.Generator().manual_seed(2))
        assert_same_function(outputs(theirs, interpolate=True), read.model, larger)


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case].written])
def test_transformers_builds_the_exported_folder(case, tmp_path):
    theirs = saved(case, tmp_path / "theirs")
    read = load_checkpoint(tmp_path / "theirs")
    export_model(read, "huggingface", tmp_path / "ours")
    kind = CASES[case].written
    again = bare(tmp_path / "ours") if kind.startswith("Data2Vec") else loaded(tmp_path / "ours", kind)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == [kind]
    assert_same_function(outputs(again), outputs(theirs), images_of(read.model.config))
    back = load_checkpoint(tmp_path / "ours").model
    differing = {"position_resampling": read.model.config.position_resampling}  # SigLIP's is not SigLIP 2's
    assert back.config.replace(**differing) == read.model.config
    if type(theirs).__name__ == kind:
        written = load_file(tmp_path / "ours" / "model.safetensors")
        kept = {key: t for key, t in tensors_of(tmp_path / "theirs").items() if key not in read.report.dropped}
        unused = {key for key in written if "post_layernorm" in key and case == "CLIP, classes"}
        assert_same_tensors({key: t for key, t in written.items() if key not in unused}, kept)
    else:
        assert_same_tensors(back.state_dict(), read.model.state_dict())


def bare(folder) -> nn.Module:
    """data2vec without a pooling layer, which is its default."""
    return transformers.Data2VecVisionModel.from_pretrained(folder).eval()


def tensors_of(folder) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("case", ["BEiT", "BEiT, classes", "DINOv2, SwiGLU", "DINOv2, registers", "DINOv3, gated"])
def test_names_in_memory_are_read(case, tmp_path):
    theirs = saved(case, tmp_path)
    memory = {key: tensor.contiguous() for key, tensor in theirs.state_dict().items()}
    assert memory.keys() != tensors_of(tmp_path).keys()
    on_disk = load_checkpoint(tmp_path)
    save_file(memory, tmp_path / "model.safetensors")
    in_memory = load_checkpoint(tmp_path)
    assert in_memory.model.config == on_disk.model.config
    assert_same_tensors(in_memory.model.state_dict(), on_disk.model.state_dict())


@pytest.mark.parametrize("case", ["BEiT", "data2vec, classes", "DINOv2, classes", "DINOv3", "InternViT", "I-JEPA"])
def test_without_a_config_the_keys_name_the_kind(case, tmp_path):
    theirs = saved(case, tmp_path)
    eps = theirs.config.layer_norm_eps
    size = {"image_size": (32, 32)} if case == "DINOv3" else {}
    read = load_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    alone = load_checkpoint(tmp_path, num_heads=4, **size)
    assert alone.model.config == read.model.config
    assert alone.model.config.norm_eps == eps
    reasons = {guess.field: guess.why for guess in alone.report.guesses}
    assert {reasons[name] for name in ("gelu", "norm_eps", "preprocessing")} == {"transformers' default"}
    assert_same_function(outputs(theirs), alone.model, images_of(alone.model.config))


@pytest.mark.parametrize("case", ["BEiT", "BEiT, classes"])
def test_a_table_of_relative_positions_tells_the_number_of_heads(case, tmp_path):
    theirs = saved(case, tmp_path)
    (tmp_path / "config.json").unlink()
    read = load_checkpoint(tmp_path / "model.safetensors")
    assert read.model.config.num_heads == 4
    assert "num_heads" not in {guess.field for guess in read.report.guesses}
    assert_same_function(outputs(theirs), read.model, images_of(read.model.config))


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("mean", [True, False])
def test_beits_masked_pretraining_is_read_as_its_encoder(mean, in_memory, tmp_path):
    """With mean pooling, the only final norm is that of the pre-training; without, it comes after the encoder's own."""
    arguments = {"use_mean_pooling": mean, "use_mask_token": True, "vocab_size": 11, **RELATIVE}
    theirs = filled(single("BeitForMaskedImageModeling", "Beit", **arguments)())
    theirs.save_pretrained(tmp_path)
    if in_memory:
        save_file({key: t.contiguous() for key, t in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    read = load_checkpoint(tmp_path)
    heads = {"lm_head.weight", "lm_head.bias"} | (set() if mean else {"layernorm.weight", "layernorm.bias"})
    assert {key for key in read.report.dropped if "position_index" not in key} == heads
    norm = theirs.layernorm if mean else nn.Identity()
    encoded = lambda images: norm(theirs.beit(images).last_hidden_state)[:, 0]  # noqa: E731
    assert_same_function(encoded, read.model, images_of(read.model.config))


def test_msn_is_read_with_the_prefix_of_its_published_files(tmp_path):
    theirs = saved("MSN, classes", tmp_path)
    tensors = tensors_of(tmp_path)
    assert any(key.startswith("encoder.") for key in tensors), "transformers saves the prefix again: drop this layout"
    save_file(
        {re.sub(r"^encoder\.", "vit.encoder.", key): tensor for key, tensor in tensors.items()},
        tmp_path / "model.safetensors",
    )
    read = load_checkpoint(tmp_path)
    assert_same_function(outputs(theirs), read.model, images_of(read.model.config))


def test_aimv2_head_is_computed_but_not_exported(tmp_path):
    saved("AIMv2, head", tmp_path / "theirs")
    read = load_checkpoint(tmp_path / "theirs")
    with pytest.raises(InputError, match=r"transformers cannot hold .*attention pooling"):
        export_model(read, "huggingface", tmp_path / "ours")


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (single("BeitModel", "Beit", **RELATIVE, **TABLE), "positions of its tokens and relative positions"),
        (single("BeitModel", "Beit", **RELATIVE, **SHARED), "of each block and others that all blocks share"),
        (single("DINOv3ViTModel", "DINOv3ViT", rope_theta=10.0), "rope_theta 10.0"),
        (single("DINOv3ViTModel", "DINOv3ViT", use_gated_mlp=True), "a gated MLP with hidden_act 'gelu'"),
        (single("DINOv3ViTModel", "DINOv3ViT", proj_bias=False), "biases after attention or in the MLP"),
        (single("DINOv3ViTModel", "DINOv3ViT", query_bias=False), "no query, no key bias"),
        (single("InternVLVisionModel", "InternVLVision", use_qk_norm=True), "norms of query and key are RMSNorm"),
        (single("InternVLVisionModel", "InternVLVision", **NORMS, layer_norm_eps=1e-5), "RMSNorm with eps 1e-6"),
        (
            single("InternVLVisionModel", "InternVLVision", norm_type="rms_norm", **CLASS_TOKEN),
            "final one is LayerNorm",
        ),
        (single("Dinov2Model", "Dinov2", image_size=[16, 64]), "reads its positions as a square"),
        (single("Aimv2VisionModel", "Aimv2Vision", hidden_act="gelu"), "hidden_act 'gelu'"),
        (
            single("MLCDVisionModel", "MLCDVision", rope_parameters={"rope_theta": 100.0, "rope_type": "axial"}),
            "rope_theta 100.0",
        ),
        (single("PixioModel", "Pixio"), "model_type 'pixio', which vitreous does not support"),
        (single("YolosModel", "Yolos", image_size=[32, 32]), "model_type 'yolos', which vitreous does not support"),
    ],
)
def test_what_differs_is_refused_by_name(build, named, tmp_path):
    filled(build()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        load_checkpoint(tmp_path)
    assert caught.value.hint
    assert "\n" not in caught.value.cause


def test_a_model_type_is_refused_by_name_before_the_keys_are(tmp_path):
    config = {"model_type": "sam_vision_model", "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"layers.0.attn.rel_pos_h": torch.ones(7, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"config.json has model_type 'sam_vision_model', which") as caught:
        load_checkpoint(tmp_path)
    assert "dinov3_vit" in caught.value.hint
