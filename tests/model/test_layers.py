"""Each box works alone, and refuses what it cannot do."""

import pytest

import vitreous as vt

# In a process without beartype, which would refuse some of these first.
REFUSED = {
    "vt.SelfAttention(768, 0)": "num_heads is 0; it must be an integer of at least 1",
    "vt.SelfAttention(768, -12)": "num_heads is -12",
    "vt.PatchEmbedding(16, 768, 0)": "channels is 0",
    "vt.BlockOptions(mlp='foo')": "mlp is 'foo'; it can be mlp, swiglu",
    "vt.EncoderBlock(8, 2, 16, stochastic_depth=1.0)": "stochastic_depth is 1.0",
    "vt.LearnedPosition((2, 2), 8, slots=1, prefix_tokens=0)": "(0); set slots=0, or prefix_tokens=1",
    "vt.LearnedPosition((2, 2), 8, site='foo')": "position_site is 'foo'",
    "vt.LearnedPosition((2, 2), 8, resampling='foo')": "position_resampling is 'foo'",
    "vt.SinCos2DPosition(8, exponent='foo')": "sincos_exponent is 'foo'",
    "vt.SinCos2DPosition(4)": "divisible by 4, 8 or more, got 4; set width=8",
    "vt.RelativePosition((2, 2), 8, 2, site='stem')": "relative positions act inside attention",
    "vt.RelativeBias((2, 2), 2, 1, 'stem', 1, 'bilinear')": "relative positions act inside attention",
    "vt.RotaryPosition('foo', 2, 8, 1, 0)": "rotary is 'foo'",
    "vt.RotaryPosition('eva02', 2, 6, 1, 0)": "heads of a multiple of 4 numbers, got 6",
    "vt.variant(None)": "there is no variant 'None'",
}
MODEL = 'vt.VisionTransformer.from_variant("mu/16", depth=1, image_size=32)'
HYBRID = 'vt.VisionTransformer.from_variant("R26+S/32", depth=1, image_size=64)'
LAST = "images of 2×32×64×3, with the channels last; move them first: images.permute(0, 3, 1, 2)"
REFUSED |= {
    f"{MODEL}(torch.zeros(3, 32, 32))": "one image of 3×32×32, without a batch axis; add the axis: image[None]",
    f"{MODEL}(torch.zeros(32, 32, 3))": "without a batch axis; add the axis: image.permute(2, 0, 1)[None]",
    f"{MODEL}(torch.zeros(32, 32))": "images of 32×32; their axes must be batch, channels, height, width",
    f"{MODEL}(torch.zeros(2, 32, 64, 3))": LAST,
    f"{HYBRID}(torch.zeros(2, 32, 64, 3))": LAST,
    f"{MODEL}.tokens(torch.zeros(3, 32, 32), [0])": "one image of 3×32×32, without a batch axis",
    f"vt.inspect({MODEL}, torch.zeros(3, 32, 32))": "one image of 3×32×32, without a batch axis",
    f"vt.inspect({MODEL}, torch.zeros(2, 32, 64, 3))": LAST,
    f"vt.attention_rollout({MODEL}, torch.zeros(3, 32, 32))": "one image of 3×32×32, without a batch axis",
    "vt.PatchEmbedding(16, 8)(torch.zeros(3, 32, 32))": "one image of 3×32×32, without a batch axis",
    "vt.PatchEmbedding(16, 8)(torch.zeros(2, 32, 64, 3))": LAST,
    "vt.PatchEmbedding(16, 8)(torch.zeros(2, 4, 32, 32))": "the image has 4 channels; this model takes 3",
}


def test_nonsense_is_refused_by_every_layer(fresh_process):
    code = "import torch, vitreous as vt\n"
    for call in REFUSED:
        code += f"try:\n    {call}\nexcept ValueError as error:\n    print(error)\nelse:\n    print('nothing')\n"
    lines = fresh_process(code).stdout.splitlines()
    assert len(lines) == len(REFUSED)
    for line, (call, reason) in zip(lines, REFUSED.items(), strict=True):
        assert reason in line, call


@pytest.mark.parametrize(
    "make",
    [
        lambda: vt.PatchEmbedding(16, 768),
        lambda: vt.SelfAttention(768, 12),
        lambda: vt.MLP(768, 3072),
        lambda: vt.SwiGLU(768, 2048),
        lambda: vt.EncoderBlock(768, 12, 3072),
        lambda: vt.LearnedPosition((14, 14), 768),
        lambda: vt.SinCos2DPosition(768),
        lambda: vt.Head(768, 1000),
        lambda: vt.AttentionPooling(768, 12, 3072),
    ],
)
def test_plain_numbers_are_enough(make):
    assert isinstance(make(), vt.PatchEmbedding.__mro__[1])
