"""The names of ImageNet's classes, for weights of 1,000 unnamed classes."""

import torch
from torchvision.models import ViT_B_16_Weights

from tests.checkpoints.families.test_timm import peer
from tests.checkpoints.peers import through_a_file
from vitreous.checkpoints.families.imagenet import imagenet_class_names


def test_the_names_are_torchvisions():
    assert list(imagenet_class_names()) == ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"]


def test_they_are_read_without_importing_torchvision(fresh_process):
    code = "import sys; from vitreous.checkpoints.families.imagenet import imagenet_class_names as names; "
    assert fresh_process(code + "print(names()[0], 'torchvision' in sys.modules)").stdout == "tench False\n"


def test_a_thousand_unnamed_classes_are_taken_for_imagenets(tmp_path):
    read = through_a_file(peer(num_classes=1000).state_dict(), tmp_path, num_heads=4)
    assert read.class_names == imagenet_class_names()
    assert "guessed: class_names = ImageNet-1k's (there are 1,000 classes)" in str(read.report)
    read = through_a_file(peer(num_classes=999).state_dict(), tmp_path, num_heads=4)
    assert read.class_names is None
    assert torch.equal(read.model.state_dict()["head.classifier.bias"], peer(num_classes=999).head.bias)
