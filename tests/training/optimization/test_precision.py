import pytest
import torch

from vitreous.support.errors import InputError
from vitreous.training.optimization.precision import LossScale, autocast, choose_precision

CPU = torch.device("cpu")


def test_a_cpu_computes_in_float32_by_default():
    assert choose_precision("auto", CPU) == "float32"
    assert choose_precision("bfloat16", CPU) == "bfloat16"
    with pytest.raises(InputError, match=r"float16 and the device a CPU; set precision=bfloat16"):
        choose_precision("float16", CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_products_are_of_the_precision(precision: str, dtype: torch.dtype):
    layer = torch.nn.Linear(3, 4)
    with autocast(precision, CPU):
        assert layer(torch.randn(2, 3)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_the_loss_scale_halves_and_doubles():
    scale = LossScale(CPU, first=1024.0, patience=3)
    factors = []
    for healthy in (True, True, False, True, True, True, True, True, False, False):
        scale.update(torch.tensor(healthy))
        factors.append(scale.factor.item())
    assert factors == [1024, 1024, 512, 512, 512, 1024, 1024, 1024, 512, 256]
