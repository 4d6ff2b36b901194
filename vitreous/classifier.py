"""Classifier: a model together with its preprocessing and its class names; Prediction: its output for one image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.files.layout import MODEL_FILE
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.publish import model_card, published
from vitreous.checkpoints.report import ExportReport, LoadReport
from vitreous.checkpoints.sources.hub import push
from vitreous.checkpoints.store import StoredModel, save_model
from vitreous.data.decoding.images import BadImage
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.reading import AnyImage, Batches, Reading, as_list, read_batches, read_or_raise
from vitreous.model.adapt import ChannelMethod, adapt
from vitreous.model.config import Resampling, grid_of
from vitreous.model.vit import VisionTransformer
from vitreous.support.errors import InputError
from vitreous.support.files import write_text
from vitreous.support.host import best_device
from vitreous.support.text import counted, html_text

if TYPE_CHECKING:
    from vitreous.explain.explanation import Explanation
    from vitreous.training.recipe.recipe import Recipe

BATCH_SIZE = 32
TOP = 5  # classes in a prediction


@dataclass(frozen=True)
class Prediction:
    """The top classes of one image.

    Args:
        image: its name, or its number in the list if it has none.
        top: the most probable classes with their probabilities, best first, at most five.
    """

    image: str
    top: tuple[tuple[str, float], ...]

    @property
    def class_name(self) -> str:
        return self.top[0][0]

    @property
    def probability(self) -> float:
        return self.top[0][1]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "image": self.image,
            "class_name": self.class_name,
            "probability": self.probability,
            "top": [{"class_name": name, "probability": p} for name, p in self.top],
        }

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{html_text(name)}</td><td>{p:.1%}</td></tr>" for name, p in self.top)
        return f"<table><caption>{html_text(self.image)}</caption>{rows}</table>"


class Classifier:
    """A model with everything that belongs to it: call it with photos, get class names and probabilities.

    Args:
        stored: the model with what belongs to it, all of which are attributes here; put into evaluation mode.
        changes: the adaptations since loading, one sentence each.
    """

    def __init__(self, stored: StoredModel, changes: Sequence[str] = ()) -> None:
        self.stored = stored
        self.changes = list(changes)
        stored.model.eval()

    @property
    def model(self) -> VisionTransformer:
        return self.stored.model

    @property
    def preprocessing(self) -> Preprocessing:
        return self.stored.preprocessing

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.stored.class_names

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.stored.metadata

    @property
    def report(self) -> LoadReport | None:
        return self.stored.report

    @classmethod
    def from_pretrained(
        cls, repo_id: str, revision: str | None = None, device: str | None = None, **options: Any
    ) -> Self:
        """Loads a classifier from the Hugging Face hub, as `vitreous.load("hf:owner/name@revision")` does.

        Args:
            repo_id: owner/name.
            revision: a branch, tag or commit; the main branch if None.
            device: as for `vitreous.load`.
            **options: `family`, `part`, `mapped` and fields of ViTConfig, as for `vitreous.load`.

        Raises:
            InputError: the repository does not exist or cannot be reached, or its weights do not fit.
        """
        name = f"hf:{repo_id}" + ("" if revision is None else f"@{revision}")
        try:
            stored = load_checkpoint(name, **options)
        except InputError as error:
            local = f", or load the local files with vitreous.load({repo_id!r})" if Path(repo_id).exists() else ""
            raise InputError(error.cause, (error.hint + local).removeprefix(", ")) from error
        return cls(stored).to(device or best_device())

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model file and a model card to a repository of the Hugging Face hub.

        Args:
            repo_id: owner/name; created if it does not exist.
            private: whether a new repository is private.
            token: with write access; by default huggingface_hub's.

        Returns:
            The URL of the repository.

        Raises:
            InputError: the hub cannot be reached, or refuses.
        """
        with TemporaryDirectory() as name:
            folder, metadata = Path(name), published(self.metadata)
            save_model(folder / MODEL_FILE, self.model, self.preprocessing, self.class_names, metadata)
            write_text(folder / "README.md", self.card(repo_id))
            return push(folder, repo_id, private=private, token=token, message=f"{self!r}")

    def card(self, repo_id: str = "owner/name") -> str:
        """The model card for a repository of the hub, in Markdown."""
        return model_card(replace(self.stored, metadata=published(self.metadata)), f"{self!r}", repo_id)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """Moves the model to a device, in place."""
        self.model.to(device)
        return self

    def names(self) -> tuple[str, ...]:
        """The class names; "class 0" and so on for unnamed classes.

        Raises:
            InputError: the model has no head.
        """
        count = self.model.config.num_classes
        if not count:
            cause = "this model has no head: it gives features, not classes"
            raise InputError(cause, "train a head first: vitreous train photos/ --model THIS_MODEL")
        return self.class_names or tuple(f"class {i}" for i in range(count))

    def __call__(self, images: AnyImage | Sequence[AnyImage]) -> list[Prediction]:
        """Classifies photos.

        Args:
            images: paths, bytes of image files, or PIL images: one, or a list.

        Returns:
            One prediction per image, in order.

        Raises:
            InputError: the model has no head.
            BadImage: an image cannot be read; `each` continues with the next.
        """
        predictions = []
        for prediction in self.each(as_list(images)):
            if isinstance(prediction, BadImage):
                raise prediction
            predictions.append(prediction)
        return predictions

    def each(
        self, images: Sequence[AnyImage], batch_size: int = BATCH_SIZE, reading: Reading | None = None
    ) -> Iterator[Prediction | BadImage]:
        """Classifies any number of photos, one batch at a time; yields the error of an image that cannot be read.

        `reading` has the limits of files, and gets remarks on them. Raises InputError, before the first image is read,
        if the model has no head.
        """
        return self._each(read_batches(images, self.preprocessing, batch_size, reading), self.names())

    def _each(self, batches: Batches, names: Sequence[str]) -> Iterator[Prediction | BadImage]:
        for labels, pixels in batches:
            rows = iter(self._probabilities(pixels, len(names)) if pixels else ())
            for label in labels:
                if isinstance(label, BadImage):
                    yield label
                    continue
                values, indices = next(rows)
                yield Prediction(label, tuple((names[i], p) for i, p in zip(indices, values, strict=True)))

    def features(self, images: AnyImage | Sequence[AnyImage]) -> Float[Tensor, "images features"]:
        """Computes the representations y (equation 4) of photos; the result is on the CPU.

        Raises:
            BadImage: an image cannot be read.
        """
        parts = [torch.empty(0, self.model.config.feature_width)]
        for _, pixels in read_or_raise(as_list(images), self.preprocessing, BATCH_SIZE):
            with torch.inference_mode():
                parts.append(self.model.representation(self._inputs(pixels)).float().cpu())
        return torch.cat(parts)

    def explain(
        self, images: AnyImage | Sequence[AnyImage], class_name: str | None = None
    ) -> "Explanation | list[Explanation]":
        """Shows where the model looks: attention rollout, and the evidence for a class.

        Args:
            images: as for calling; one, or a list.
            class_name: the class to explain; each photo's top class if None.

        Returns:
            One explanation, or a list for a list. They display in notebooks; `save` writes the picture.

        Raises:
            BadImage: an image cannot be read.
            InputError: there is no such class.
        """
        from vitreous.explain.chunks import images_at_once
        from vitreous.explain.explanation import explain_batch

        photos, config, size = as_list(images), self.model.config, self.preprocessing.image_size
        names = self.names() if config.num_classes else ()
        count = min(BATCH_SIZE, images_at_once(config, size, with_gradient=bool(names)))
        explanations: list[Explanation] = []
        for labels, pixels in read_or_raise(photos, self.preprocessing, count):
            explanations += explain_batch(self.model, self._inputs(pixels), labels, pixels, names, class_name)
        return explanations if photos is images else explanations[0]

    def adapt(
        self,
        *,
        image_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        channels: int | None = None,
        resampling: Resampling | None = None,
        channel_method: ChannelMethod = "average",
    ) -> "Classifier":
        """Makes a classifier for other images or classes; see `vitreous.model.adapt.adapt`.

        Both classifiers share the memory of every unchanged parameter: copy one before training it if you still use
        the other. `changes` of the new one lists what was done.

        Args:
            image_size: pixels, (height, width) or one number; the preprocessing follows.
            patch_size: as image_size; images stay as they are.
            num_classes: of a new head, all zero; 0 for none.
            class_names: of the new head, one for each class.
            channels: of the images; the preprocessing follows, with the mean of its statistics.
            resampling: of positions; as in the weights' own code if None.
            channel_method: "average" gives every new channel the mean of the old ones, "repeat" the old ones in turn.

        Raises:
            InputError: a value is not valid, or does not fit the others.
        """
        if class_names is not None and num_classes is None:
            num_classes = len(class_names)
        model, changes = adapt(
            self.model,
            image_size=image_size,
            patch_size=patch_size,
            num_classes=num_classes,
            channels=channels,
            resampling=resampling,
            channel_method=channel_method,
        )
        if class_names is None and num_classes is None:
            class_names = self.class_names
        size = self.preprocessing.image_size if image_size is None else model.config.image_size
        try:
            grid_of(size, model.config.token_stride)
        except InputError as error:
            raise InputError(f"after the preprocessing, {error.cause}", error.hint) from error
        adapted = replace(
            self.stored,
            model=model,
            preprocessing=self.preprocessing.adapted(size, model.config.channels),
            class_names=None if class_names is None else tuple(class_names),
        )
        return Classifier(adapted, [*self.changes, *changes])

    def export(
        self, out: str | Path, to: str, *, dtype: torch.dtype | None = None, overwrite: bool = False
    ) -> ExportReport:
        """Writes the model in the format of a family; see `vitreous.checkpoints.export.export_model`.

        Args:
            out: a file or a folder.
            to: the family, such as "timm"; "vitreous" for a vitreous file.
            dtype: of the stored numbers; float32 if None.
            overwrite: replace what is there.

        Raises:
            InputError: the family cannot hold the model, and it names the parts; or `out` cannot be written.
        """
        return export_model(self.stored, to, out, dtype=dtype, overwrite=overwrite)

    def save(self, path: str | Path) -> None:
        """Writes the complete model file, atomically; `vitreous.load` reads it."""
        save_model(path, self.model, self.preprocessing, self.class_names, self.metadata)

    def __repr__(self) -> str:
        c = self.model.config
        size = "×".join(map(str, self.preprocessing.image_size))
        classes = "no head" if not c.num_classes else f"{c.num_classes} classes"
        return f"Classifier({counted(c.depth, 'block')} of width {c.width}, {size} pixels, {classes})"

    def _repr_html_(self) -> str:
        return f"<code>{html_text(repr(self))}</code><br>{html_text(', '.join(self.class_names or ()))}"

    def _inputs(self, pixels: list[Tensor]) -> Tensor:
        return self.preprocessing.normalize(torch.stack(pixels).to(self.device))

    @torch.inference_mode()
    def _probabilities(self, pixels: list[Tensor], classes: int) -> Iterator[tuple[list[float], list[int]]]:
        top = self.model(self._inputs(pixels)).float().softmax(dim=-1).topk(min(TOP, classes))
        return zip(top.values.tolist(), top.indices.tolist(), strict=True)


def load(
    source: str | Path,
    device: str | None = None,
    *,
    family: str | None = None,
    part: str | None = None,
    mapped: bool = False,
    **fields: Any,
) -> Classifier:
    """Loads a classifier: weights with their preprocessing and class names.

    Args:
        source: a run's folder; a weights file of vitreous or of any family (.safetensors, .npz, .pth, .bin); a folder
            laid out as on the hubs; a name: hf:owner/name, timm:name.tag, torchvision:name, google:name, meta:name
            (`vitreous list models`); or an https address ending in #sha256= and its checksum.
        device: "cuda", "mps", "cpu"; the best available if None.
        family: the file's family, if its keys match several.
        part: prefix of the keys of one model, if the file holds several: "student", "ema_model".
        mapped: leave float32 weights in the file to save memory; the file must then never change.
        **fields: fields of ViTConfig that the file does not record, such as `num_heads=3`.

    Raises:
        InputError: there is no model, or several, or it cannot be read.
    """
    stored = load_checkpoint(source, family=family, part=part, mapped=mapped, **fields)
    return Classifier(stored).to(device or best_device())


def train(
    data: Any = None,
    model: str = "auto",
    recipe: "str | Path | Recipe | None" = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    init: str | None = None,
    resume: str | Path | None = None,
) -> Classifier:
    """Trains a classifier, as `vitreous train` does, and writes a run folder.

    Args:
        data: "digits", a folder or archive with a folder per class, a table, a DataFrame or a dataset; see `open_data`.
        model: a variant such as "S/16", from scratch; weights, as for `load`; or "auto": known weights, if available.
        recipe: a TOML file, a built-in name, also with options ("augreg+light1"), or a Recipe; the default if None.
        out: the run folder, new or empty, and outside the data; runs/ and the name of the data if None.
        settings: values that override the recipe's, by leaf or dotted path, such as {"lr": 1e-3}.
        init: "random" for fresh weights, "pretrained" for published ones of the variant; as in the recipe if None.
        resume: the folder of a run to go on with; `data` only if it came from Python or moved, `settings` for `epochs`.

    Returns the best model on validation, as saved in the run folder.

    Raises:
        InputError: an argument is not usable, and no folder is made; or training cannot continue.
    """
    from vitreous.training.run import run_training

    return load(run_training(data, model, recipe, out, settings, init=init, resume=resume).folder)
