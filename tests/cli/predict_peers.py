"""The peers of `vitreous predict`: a small model of each, its files as users have them, and its own pipeline."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from PIL import Image
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import VisionTransformer, ViT_B_16_Weights
from torchvision.transforms import InterpolationMode

CLASSES = 12
NAMES = [f"kind {chr(97 + i)}" for i in range(CLASSES)]  # for peers that store class names
NUMBERS = [f"class {i}" for i in range(CLASSES)]  # for peers that do not
SIZE = 224
SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 4}
BY_WIDTH = {"embed_dim": 192, "depth": 2, "num_heads": 3}  # 64 per head, as guessed without a config
PLAIN = "vit_base_patch32_224"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Pipeline = Callable[[Image.Image], Tensor]  # from a photo in RGB to "channels height width"
Named = Mapping[str, Tensor]


def cropped(side: int, interpolation: InterpolationMode, mean: tuple[float, ...], std: tuple[float, ...]) -> Pipeline:
    """Resizes the shorter side, crops the middle and normalizes, as most authors do."""
    steps = [transforms.Resize(side, interpolation), transforms.CenterCrop(SIZE), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize(mean, std)])


IMAGENET = cropped(256, InterpolationMode.BICUBIC, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # DeiT's and MAE's
BIG_VISION = cropped(256, InterpolationMode.BILINEAR, (0.5,) * 3, (0.5,) * 3)
OPENAI = cropped(SIZE, InterpolationMode.BICUBIC, CLIP_MEAN, CLIP_STD)


def squashed(photo: Image.Image) -> Tensor:
    """Google's pipeline: squashed, with values from -1 to 1."""
    values = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    return torch.from_numpy(values / 127.5 - 1).permute(2, 0, 1)


class Peer:
    """A peer's model, its file and its pipeline.

    Attributes:
        names: the class names that `vitreous predict` must print.
        heads: the classifiers; their logits are averaged.
        biased: whether the file has their biases.
    """

    names: list[str] = NUMBERS
    heads: tuple[str, ...] = ("head",)
    biased = True

    def build(self) -> nn.Module:
        """A new model with any weights."""
        raise NotImplementedError

    def save(self, model: nn.Module, folder: Path) -> Path:
        """Writes the files that users of the peer have; returns the path for `vitreous predict`."""
        raise NotImplementedError

    def load(self, path: Path) -> nn.Module:
        """Reads the files with the peer's own code."""
        raise NotImplementedError

    def pipeline(self, path: Path, model: nn.Module) -> Pipeline:
        """The peer's preprocessing."""
        raise NotImplementedError

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """The logits of the peer's model."""
        return model(images)


class TimmFolder(Peer):
    """A hub folder written and read by timm, with its config.json."""

    names = NAMES

    def __init__(self, *, pretrained: Mapping[str, Any], architecture: str = PLAIN, **arguments: Any) -> None:
        self.pretrained, self.architecture, self.arguments = dict(pretrained), architecture, SMALL | arguments

    def build(self):
        known = {"pretrained_cfg_overlay": self.pretrained, "num_classes": CLASSES}
        return timm.create_model(self.architecture, **known, **self.arguments)

    def save(self, model, folder):
        known = {"label_names": NAMES, "model_args": self.arguments}
        timm.models.save_for_hf(model, folder, model_config=known, safe_serialization=True)
        return folder

    def load(self, path):
        return timm.create_model(f"local-dir:{path}", pretrained=True)

    def pipeline(self, path, model):
        return timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)


class AuthorsFile(Peer):
    """A file as published by the authors of DeiT, MAE or CLIP; timm has their models and reads their names."""

    def __init__(
        self, steps: Pipeline, spell: Callable[[Named], Mapping[str, Any]], architecture: str = PLAIN, **arguments: Any
    ) -> None:
        self.steps, self.spell = steps, spell
        self.architecture, self.arguments = architecture, BY_WIDTH | {"patch_size": 32} | arguments
        self.heads = ("head", "head_dist") if "distilled" in architecture else ("head",)
        self.biased = spell is not openai

    def build(self):
        return timm.create_model(self.architecture, num_classes=CLASSES, **self.arguments)

    def save(self, model, folder):
        torch.save(self.spell(model.state_dict()), folder / "checkpoint.pth")
        return folder / "checkpoint.pth"

    def load(self, path):
        model = self.build()
        model.load_state_dict(checkpoint_filter_fn(torch.load(path, weights_only=True), model, adapt_layer_scale=True))
        return model

    def pipeline(self, path, model):
        return self.steps


def under_model(tensors: Named) -> Mapping[str, Any]:
    """In the layout of DeiT's and MAE's training scripts."""
    return {"model": tensors, "epoch": 299}


def deit3(tensors: Named) -> Mapping[str, Any]:
    """DeiT-III's names of LayerScale."""
    names = {key: key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2") for key in tensors}
    return {"model": {names[key]: tensor for key, tensor in tensors.items()}}


def openai(tensors: Named) -> Mapping[str, Any]:
    """OpenAI's names of CLIP's image tower; the projection is the head."""
    names = {"patch_embed.proj": "conv1", "blocks.": "transformer.resblocks."}
    names |= {"norm_pre": "ln_pre", "norm.": "ln_post.", "norm1": "ln_1", "norm2": "ln_2"}
    names |= {"qkv.": "in_proj_", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    spelt = {}
    for key, tensor in tensors.items():
        for theirs, authors in names.items():
            key = key.replace(theirs, authors)
        spelt[f"visual.{key}"] = tensor
    spelt["visual.class_embedding"] = spelt.pop("visual.cls_token")[0, 0]
    spelt["visual.positional_embedding"] = spelt.pop("visual.pos_embed")[0]
    spelt["visual.proj"] = spelt.pop("visual.head.weight").T
    del spelt["visual.head.bias"]
    return spelt


class Npz(Peer):
    """A file of Google's or big_vision's, which timm can read."""

    def __init__(self, steps: Pipeline, **arguments: Any) -> None:
        self.steps, self.arguments = steps, SMALL | {"act_layer": "gelu_tanh", "fc_norm": False} | arguments
        self.big_vision = steps is BIG_VISION

    def build(self):
        return timm.create_model(PLAIN, num_classes=CLASSES, **self.arguments)

    def save(self, model, folder):
        prefix = "params/" if self.big_vision else ""
        tensors = {f"{prefix}{key}": tensor.numpy() for key, tensor in npz_tensors(model, self.big_vision).items()}
        np.savez(folder / "weights.npz", **tensors)
        return folder / "weights.npz"

    def load(self, path):
        model = self.build()
        model.load_pretrained(str(path))
        return model

    def pipeline(self, path, model):
        return self.steps


def npz_tensors(model: Any, big_vision: bool) -> Named:
    """The tensors of a timm model in the authors' layout."""
    second_norm, attention, mlp = (1, 0, 0) if big_vision else (2, 1, 3)
    kernel, bias = model.patch_embed.proj.weight.detach(), model.patch_embed.proj.bias.detach()
    positions = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    tensors = {"embedding/kernel": kernel.permute(2, 3, 1, 0), "embedding/bias": bias}
    tensors |= {positions: model.pos_embed.detach()}
    tensors |= {} if model.cls_token is None else {"cls": model.cls_token.detach()}
    for i, block in enumerate(model.blocks):
        theirs = f"Transformer/encoderblock_{i}/"
        qkv = block.attn.qkv
        tensors |= norm(f"{theirs}LayerNorm_0", block.norm1) | norm(f"{theirs}LayerNorm_{second_norm}", block.norm2)
        tensors |= attending(f"{theirs}MultiHeadDotProductAttention_{attention}", qkv.weight, qkv.bias, block.attn)
        tensors |= both_dense(f"{theirs}MlpBlock_{mlp}", block.mlp)
    if model.attn_pool is not None:
        pool, theirs = model.attn_pool, "MAPHead_0/"
        weight, bias = (torch.cat([getattr(pool.q, part), getattr(pool.kv, part)]) for part in ("weight", "bias"))
        tensors |= {f"{theirs}probe": pool.latent.detach()} | norm(f"{theirs}LayerNorm_0", pool.norm)
        tensors |= attending(f"{theirs}MultiHeadDotProductAttention_0", weight, bias, pool)
        tensors |= both_dense(f"{theirs}MlpBlock_0", pool.mlp)
    return tensors | norm("Transformer/encoder_norm", model.norm) | dense("head", model.head)


def norm(name: str, layer: Any) -> dict[str, Tensor]:
    return {f"{name}/scale": layer.weight.detach(), f"{name}/bias": layer.bias.detach()}


def dense(name: str, layer: Any) -> dict[str, Tensor]:
    return {f"{name}/kernel": layer.weight.detach().T, f"{name}/bias": layer.bias.detach()}


def both_dense(name: str, mlp: Any) -> dict[str, Tensor]:
    return dense(f"{name}/Dense_0", mlp.fc1) | dense(f"{name}/Dense_1", mlp.fc2)


def attending(name: str, weight: Tensor, bias: Tensor, layer: Any) -> dict[str, Tensor]:
    """Separate query, key and value, each by head."""
    heads, width = layer.num_heads, weight.shape[1]
    tensors = {}
    parts = zip(("query", "key", "value"), weight.detach().chunk(3), bias.detach().chunk(3), strict=True)
    for part, rows, offsets in parts:
        tensors[f"{name}/{part}/kernel"] = rows.T.reshape(width, heads, -1)
        tensors[f"{name}/{part}/bias"] = offsets.reshape(heads, -1)
    tensors[f"{name}/out/kernel"] = layer.proj.weight.detach().T.reshape(heads, -1, width)
    return tensors | {f"{name}/out/bias": layer.proj.bias.detach()}


class Torchvision(Peer):
    """A torchvision file, evaluated with the transform of its published weights."""

    heads = ("heads.head",)

    def build(self):
        sizes = {"num_layers": 2, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 768, "num_classes": CLASSES}
        return VisionTransformer(image_size=SIZE, patch_size=32, **sizes)

    def save(self, model, folder):
        torch.save(model.state_dict(), folder / "vit.pth")
        return folder / "vit.pth"

    def load(self, path):
        model = self.build()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model

    def pipeline(self, path, model):
        return ViT_B_16_Weights.IMAGENET1K_V1.transforms()


class Transformers(Peer):
    """A hub folder written and read by transformers: config.json and preprocessor_config.json.

    Photos go through its image processors on Pillow. Those on tensors, which it takes where nothing is said, resize by
    other rounding.
    """

    names = NAMES

    def __init__(self, kind: str, task: str, processor: str, heads: tuple[str, ...]) -> None:
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
        self.kind, self.model, self.processor, self.heads = kind, getattr(transformers, kind + task), processor, heads
        self.sizes = sizes | {"image_size": SIZE, "patch_size": 32}
        if task == "VisionModelWithProjection":
            self.biased, self.names = False, NUMBERS

    def build(self):
        if self.kind == "CLIP":
            return self.model(transformers.CLIPVisionConfig(**self.sizes, projection_dim=CLASSES))
        named = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
        sizes = {"vision_config": self.sizes} if self.kind == "Siglip" else self.sizes
        return self.model(getattr(transformers, f"{self.kind}Config")(**sizes, **named))

    def save(self, model, folder):
        model.save_pretrained(folder)
        getattr(transformers, self.processor)().save_pretrained(folder)
        return folder

    def load(self, path):
        return self.model.from_pretrained(path)

    def pipeline(self, path, model):
        processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
        return lambda photo: torch.as_tensor(processor(images=photo, return_tensors="pt").pixel_values[0])

    def logits(self, model, images):
        answer = model(pixel_values=images)
        return answer.logits if self.biased else answer.image_embeds
