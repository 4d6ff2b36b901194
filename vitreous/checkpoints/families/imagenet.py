"""The names of ImageNet's 1,000 classes, which few weights files include."""

from functools import lru_cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

CLASSES = 1000


@lru_cache(maxsize=1)
def imagenet_class_names() -> tuple[str, ...]:
    """The names in the order of the logits that all published ImageNet-1k weights share, as torchvision has them.

    Only torchvision's file of lists is imported, because importing torchvision takes seconds.
    """
    package = find_spec("torchvision")
    lists = None if package is None or package.origin is None else Path(package.origin).parent / "models" / "_meta.py"
    if lists is not None and lists.is_file():
        spec = spec_from_file_location("vitreous_imagenet", lists)
        if spec is not None and spec.loader is not None:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            names = tuple(getattr(module, "_IMAGENET_CATEGORIES", ()))
            if len(names) == CLASSES:
                return names
    from torchvision.models import ViT_B_16_Weights

    return tuple(ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"])
