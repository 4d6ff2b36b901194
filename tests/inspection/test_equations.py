# ruff: noqa: RUF001 (the symbols are the paper's)
import pytest

from tests.inspection.test_trace import SWITCHES, small
from vitreous.inspection.trace import inspect

OWN_EQUATIONS = {
    "biases": (
        {"position_embedding": "relative_bias", "position_site": "every_layer"},
        {".attention:scaled_dot_product_attention": "A v, A = softmax(q kᵀ / √D_h + B) (6, 7)"},
    ),
    "offsets": (
        SWITCHES["relative"],
        {
            ".attention:matmul": "B = q rᵀ / √D_h",
            ".attention:scaled_dot_product_attention": "A v, A = softmax(q kᵀ / √D_h + B) (6, 7)",
        },
    ),
    "rms": (
        {"norm": "rms"},
        {
            ".attention": "MSA(RMS(zℓ₋₁)) (5–8)",
            ":add": "z′ℓ = MSA(RMS(zℓ₋₁)) + zℓ₋₁ (2)",
            ".mlp": "MLP(RMS(z′ℓ))",
            ":add.2": "zℓ = MLP(RMS(z′ℓ)) + z′ℓ (3)",
        },
    ),
    "layer scale": (
        SWITCHES["layer scale"],
        {":add": "z′ℓ = γ ⊙ MSA(LN(zℓ₋₁)) + zℓ₋₁ (2)", ":add.2": "zℓ = γ ⊙ MLP(LN(z′ℓ)) + z′ℓ (3)"},
    ),
    "norms after, rms, scale": (
        {"norm_site": "after", "norm": "rms", "layer_scale": 0.1},
        {
            ".attention_scale": "γ ⊙ RMS(MSA(zℓ₋₁))",
            ":add": "z′ℓ = γ ⊙ RMS(MSA(zℓ₋₁)) + zℓ₋₁",
            ":add.2": "zℓ = γ ⊙ RMS(MLP(z′ℓ)) + z′ℓ",
        },
    ),
    "no biases": ({"dense_bias": False}, {".mlp.fc1": "z W₁", ".mlp.fc2": "h W₂"}),
    "gated": (SWITCHES["swiglu"], {".mlp.fc1": "[a, b] = z W₁ + b₁"}),
}


@pytest.mark.parametrize("switch", OWN_EQUATIONS)
def test_the_equations_of_a_block_are_its_own(switch):
    fields, expected = OWN_EQUATIONS[switch]
    trace = inspect(small(depth=1, **fields))
    rows = {s.path: s for level in (2, 3, 4) for s in trace.at_level(level).stages}
    assert {end: rows[f"encoder.blocks.0{end}"].equation for end in expected} == expected
    assert rows["encoder.blocks.0.mlp"].what.startswith("a gated MLP" if switch == "gated" else "two dense layers")
