"""Graphs of a model, by torch.export and torch.jit.trace: any batch and, where the positions allow, any size."""

import json

import pytest

from tests.model.models import NO_CLASS

# Every pooling, and every kind of position at every site.
MODELS: dict[str, dict[str, object]] = {
    "class token": {},
    "distillation": {"distillation_token": True, "registers": 2, "position_class_slot": False},
    "mean": NO_CLASS,
    "attention": {"pooling": "attention"},
    "none": {"position_embedding": "none"},
    "learned, every layer": {"position_site": "every_layer"},
    "learned, bicubic": {"position_resampling": "bicubic_antialias"},
    "2-D": {"position_embedding": "learned_2d"},
    "2-D, shared": {"position_embedding": "learned_2d", "position_site": "shared"},
    "sincos": {"position_embedding": "sincos_2d"},
    "sincos, every layer": {"position_embedding": "sincos_2d", "position_site": "every_layer"},
    "relative": {"position_embedding": "relative", "position_site": "every_layer"},
    "relative, shared": {"position_embedding": "relative", "position_site": "shared"},
}
ONE_SIZE: dict[str, dict[str, object]] = {
    "learned, offset": {"position_resampling": "bicubic_offset"},  # at its own size it must not be resampled
    "hybrid": {
        "stem_blocks": [1, 1],
        "stem_width": 32,
        "patch_size": 1,
        "image_size": 64,
    },  # SAME padding depends on the size
}

# In a process without beartype, whose checks would be part of the graph.
CODE = """
import json, sys, warnings
import torch
from torch.export import Dim, export
from tests.model.models import SMALL
from vitreous.model.config import ViTConfig
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer

warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # sizes are constants of a trace
warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch.jit itself
batch, rows, columns = Dim("batch", min=1), Dim("rows", min=1, max=64), Dim("columns", min=1, max=64)
models, any_size = json.loads(sys.argv[1])
for fields in models:
    config = ViTConfig.from_dict(SMALL | {"depth": 1} | fields)
    model = VisionTransformer(config)
    fill_at_random(model, 0)
    model.eval()
    height, width = config.token_stride

    def images(count, grid):
        return torch.randn(count, config.channels, grid[0] * height, grid[1] * width)

    native = config.grid
    size = {0: batch, 2: height * rows, 3: width * columns} if any_size else {0: batch}
    example = images(2, (3, 5) if any_size else native)
    with torch.no_grad():
        exported = export(model, (example,), dynamic_shapes=(size,)).module()
        traced = torch.jit.trace(model, images(2, native))
        grids = [native, (6, 7), (5, 3)] if any_size else [native]
        runs = [(exported, images(count, grid)) for grid in grids for count in (1, 4)]
        runs += [(traced, images(count, native)) for count in (1, 5)]
        for graph, x in runs:
            expected = model(x)
            error = (graph(x) - expected).abs().max() / expected.abs().max()
            print(json.dumps([error.item(), expected.std(dim=0).mean().item() if len(x) > 1 else None]))
"""


@pytest.mark.parametrize(("models", "any_size"), [(MODELS, True), (ONE_SIZE, False)], ids=["any size", "one size"])
def test_graphs_take_any_batch_and_size(models, any_size, fresh_process):
    argument = repr(json.dumps([list(models.values()), any_size]))
    done = fresh_process(CODE.replace("sys.argv[1]", argument), timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(models) * (8 if any_size else 4)
    assert max(error for error, _ in rows) < 1e-5
    assert min(spread for _, spread in rows if spread is not None) > 1e-3, "the logits vary across images"
