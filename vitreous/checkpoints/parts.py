"""Which of a file's tensors are the model: training checkpoints hold more, and sometimes several models.

A model is recognized by its patch projection: a prefix of the keys under which a family finds all that it requires.
Wrappers in the middle of keys, such as those of torch.compile, are removed first.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from vitreous.checkpoints.families.recognize import FAMILIES
from vitreous.checkpoints.families.shared.reading import Shapes
from vitreous.checkpoints.files.tensors import Tensors
from vitreous.support.errors import InputError
from vitreous.support.text import listed

MODELS = 64  # at most in one file
WRAPPERS = re.compile(r"(?<![^./])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
STATE = re.compile(
    r"(optimizers?|optimizer_state_dict|optimizer_states?|opt|opt_state|opt/state|state|extra|lr_schedulers?|"
    r"lr_scheduler_state_dict|schedulers?|scheduler_state_dict|scaler|scaler_state_dict|amp_scaler|loss_scaler|"
    r"callbacks|loops|rng_states?|MixedPrecision\w*)/"
)
RUN = "state of a training run"
CLASSIFIER_BESIDE = "a classifier beside the model (not read)"
CLASSIFIER = re.compile(
    r"(.*[./])?((\w*_)?heads?(\.(fc|head|linear|classifier|\d+))?|fc|linear|(\w*_)?classifier(\.\d+)?)\.(weight|bias)"
)


class Choice(NamedTuple):
    """Which of two models in one file its makers use, by the beginnings of their prefixes."""

    taken: str
    other: str
    why: str  # for the other


# DINO's authors use the teacher; timm's reader takes the average that its training script keeps.
CHOICES = (
    Choice("teacher/", "student/", "the student; the teacher is the model"),
    Choice(
        "state_dict_ema/", "state_dict/", "the last weights; their average, state_dict_ema, is the model, as in timm"
    ),
)


class Part(Mapping[str, Tensor]):
    """The tensors of one model in an open file.

    Args:
        tensors: of the whole file.
        root: prefix of the model's keys.
        keys: the file's keys by their names without wrappers, all with the prefix `root`.
        others: reasons to leave out what is known to be no part of the model, by the file's keys; None if unknown.
    """

    def __init__(self, tensors: Tensors, root: str, keys: Mapping[str, str], others: Mapping[str, str | None]) -> None:
        self.root = root
        self.shapes = {name: tensors.shapes[key] for name, key in keys.items()}
        self.others = others
        self._tensors, self._keys = tensors, keys

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._keys[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def left_out(self, drops: tuple[tuple[str, str], ...], width: int) -> dict[str, str]:
        """The file's keys that are not in the model, with the reason.

        Args:
            drops: the family's patterns and reasons, which also name what is outside its model.
            width: of the model. A matrix with as many columns, and the name of a classifier, may be one.
        """
        beside = f"beside the model, whose keys begin with {self.root!r}"
        named = {}
        for key, why in self.others.items():
            other = CLASSIFIER_BESIDE if self._is_classifier(key, width) else beside
            named[key] = why or next((reason for pattern, reason in drops if re.match(pattern, key)), other)
        return named | dict.fromkeys(self._tensors.ignored, "not a tensor")

    def _is_classifier(self, key: str, width: int) -> bool:
        """Whether a key is the weight of a classifier of this width, or the bias beside it."""
        weight = f"{key.removesuffix('bias')}weight" if key.endswith("bias") else key
        shape = self._tensors.shapes.get(weight, ())
        return CLASSIFIER.fullmatch(key) is not None and len(shape) == 2 and shape[1] == width


def choose_part(tensors: Tensors, source: str, part: str | None = None) -> Part:
    """The only model of a file, the one that its makers use, or the one that the caller asks for.

    Args:
        tensors: the open file. If no family finds its model in it, all of it is returned.
        source: its name, for errors.
        part: a prefix of the model's keys, with or without the dot or slash at its end, or a segment that only it
            has; "." for no prefix.

    Raises:
        InputError: there are several models, and none or more than one has the prefix `part`.
    """
    keys = _without_wrappers(tensors)
    shapes = {name: tensors.shapes[key] for name, key in keys.items()}
    roots = model_roots(shapes)
    root, why = _choose_root(roots, source, part)
    others: dict[str, str | None] = {}
    inside = {}
    for name, key in keys.items():
        owner = max((r for r in roots if name.startswith(r)), key=len, default=None)
        if owner == root or (owner is None and not roots):
            inside[name] = key
        elif owner is not None:
            others[key] = why or f"another model, which part {shown(owner)!r} takes"
        else:
            others[key] = RUN if STATE.match(name) else None
    return Part(tensors, root, inside, others)


def model_roots(shapes: Shapes) -> list[str]:
    """The prefixes under which a family finds a complete model, in the file's order.

    A prefix that belongs to the family's own names, such as CLIP's "visual.", is not part of it: what is beside the
    image tower is the family's matter.
    """
    roots: dict[str, None] = {}
    for name in shapes:
        for family in FAMILIES.values():
            for key in family.patch_keys:
                prefix = name.removesuffix(key)
                if not name.endswith(key) or (prefix and prefix[-1] not in "./"):
                    continue
                body = next((b for b in family.bodies if re.search(rf"(^|[./]){re.escape(b)}$", prefix)), "")
                root = prefix.removesuffix(body)
                if root in roots:
                    continue
                inner = {n.removeprefix(prefix): shape for n, shape in shapes.items() if n.startswith(prefix)}
                if not family.missing_keys(inner):
                    roots[root] = None
                if len(roots) > MODELS:
                    raise InputError(f"the file holds more than {MODELS} models", "save one of them")
    return list(roots)


def shown(root: str) -> str:
    """A prefix as the user types it."""
    return root.rstrip("./") or "."


def _choose_root(roots: list[str], source: str, part: str | None) -> tuple[str, str | None]:
    """The prefix of the model, and why the other one is left out if the file's makers decide."""
    if part is None:
        for taken, other, why in CHOICES:
            first = [root for root in roots if root.startswith(taken)]
            if len(first) == 1 and len(roots) == 2 and any(root.startswith(other) for root in roots):
                return first[0], why
        found = roots
    else:
        found = _fitting(roots, part)
    if len(found) == 1 or (part is None and not roots):
        return (found or [""])[0], None
    options = " or ".join(f"--part {shown(root)}" for root in (found or roots)[:4])
    hint = f"choose one: {options} (part= in Python)" if options else "leave out the part"
    if not found and len(roots) == 1:
        cause = f"{source} holds one model, and its keys do not begin with {part!r}"
        raise InputError(cause, "leave out --part (part= in Python)")
    if not found:
        raise InputError(f"{source} has no model whose keys begin with {part!r}", hint)
    names = listed([repr(shown(root)) for root in found])
    raise InputError(f"{source} holds {len(found)} models, whose keys begin with {names}", hint)


def _fitting(roots: list[str], part: str) -> list[str]:
    """The prefixes that a caller may mean: the one given, else those that begin with it, end with it or contain it."""
    wanted = part.rstrip("./")
    if wanted in (exact := {root.rstrip("./"): root for root in roots}):
        return [exact[wanted]]
    name = re.escape(wanted)
    for pattern in (rf"{name}[./]", rf".*[./]{name}[./]?$", rf".*[./]{name}[./]") if wanted else ():
        if found := [root for root in roots if re.match(pattern, root)]:
            return found
    return []


def _without_wrappers(tensors: Tensors) -> dict[str, str]:
    """The file's keys by their names without wrappers; as they are if two would have the same name."""
    keys = {WRAPPERS.sub("", key): key for key in tensors}
    return keys if len(keys) == len(tensors) else {key: key for key in tensors}
