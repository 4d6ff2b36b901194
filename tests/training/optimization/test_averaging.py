import torch

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.objectives.classification import Classification, CrossEntropy
from vitreous.training.objectives.objective import Objective
from vitreous.training.optimization.averaging import WeightAverage


class Decoder(Objective):
    """An objective that has parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)


TINY = {"width": 16, "depth": 1, "mlp_dim": 24, "num_heads": 2, "image_size": 8, "patch_size": 4, "num_classes": 3}


def test_the_average_is_the_one_computed_by_hand():
    model = VisionTransformer(ViTConfig.from_dict(TINY))
    decoder = Decoder()
    average = WeightAverage(model, 0.4, decoder)
    both = torch.nn.ModuleList([model, decoder])
    expected = {name: p.detach().clone() for name, p in both.named_parameters()}
    for kept in (2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 0.4):  # (1 + n) / (10 + n), at most the decay
        with torch.no_grad():
            for name, parameter in both.named_parameters():
                parameter.add_(torch.randn_like(parameter))
                expected[name] = kept * expected[name] + (1 - kept) * parameter
        average.update(model, decoder)
    for name, parameter in torch.nn.ModuleList([average.model, average.objective]).named_parameters():
        torch.testing.assert_close(parameter, expected[name])


def test_the_model_itself_is_not_touched_and_the_average_asks_for_no_gradient():
    model = VisionTransformer(ViTConfig.from_dict(TINY)).train()
    objective = Classification(CrossEntropy())
    average = WeightAverage(model, 0.9999, objective)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    average.update(model, objective)
    assert average.objective is objective, "it learns nothing, and may hold a teacher"
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert model.training
    assert not average.model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in average.model.parameters())
