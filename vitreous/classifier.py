"""Classifier: a model together with its preprocessing and its class names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.load import load_checkpoint
from vitreous.checkpoints.publish import model_card, published
from vitreous.checkpoints.report import ExportReport, LoadReport
from vitreous.checkpoints.sources.hub import MODEL_FILE, push
from vitreous.checkpoints.store import StoredModel, check_class_names, save_model
from vitreous.data.images import BadImage
from vitreous.data.preprocessing import Preprocessing
from vitreous.data.reading import AnyImage, as_list, read_batches, read_or_raise
from vitreous.model.adapt import ChannelMethod, adapt
from vitreous.model.config import Resampling, grid_of
from vitreous.model.vit import VisionTransformer
from vitreous.prediction import Prediction
from vitreous.support.errors import InputError
from vitreous.support.files import write_text
from vitreous.support.host import best_device
from vitreous.support.text import html_text

if TYPE_CHECKING:
    from vitreous.explain.explanation import Explanation
    from vitreous.training.recipe.recipe import Recipe

BATCH_SIZE = 32
TOP = 5  # classes that a prediction lists


class Classifier:
    """A model with all that belongs to it: call it with photos, get class names and probabilities.

    Args:
        model: in whatever state; it is put into evaluation mode.
        preprocessing: what the weights expect of an image.
        class_names: in the order of the logits; None if the model has no head or its classes no names.
        metadata: source, license and the like, kept with the file.
        report: how the weights were read, where they came from another family's file.
        changes: what was adapted since, a sentence each.

    Raises:
        InputError: there is not one name for each class.
    """

    def __init__(
        self,
        model: VisionTransformer,
        preprocessing: Preprocessing,
        class_names: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        report: LoadReport | None = None,
        changes: Sequence[str] = (),
    ) -> None:
        check_class_names(class_names, model.config.num_classes)
        self.model = model.eval()
        self.preprocessing = preprocessing
        self.class_names = None if class_names is None else tuple(class_names)
        self.metadata = dict(metadata or {})
        self.report = report
        self.changes = list(changes)

    @classmethod
    def from_stored(cls, stored: StoredModel) -> Self:
        """Wraps what a file held."""
        return cls(stored.model, stored.preprocessing, stored.class_names, stored.metadata, stored.report)

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        revision: str | None = None,
        device: str | None = None,
        *,
        family: str | None = None,
        **fields: Any,
    ) -> Self:
        """Loads a classifier from the hub, as `vitreous.load("hf:owner/name")` does.

        Args:
            repo_id: owner/name; what lies on this machine is loaded with `vitreous.load`.
            revision: a branch, tag or commit; the main branch if None.
            device: as for `load`.
            family: as for `load`.
            **fields: fields of ViTConfig that the files there do not hold, such as `num_heads=3`.

        Raises:
            InputError: there is no such repository, it cannot be reached, or its weights do not fit.
        """
        name = f"hf:{repo_id}" + ("" if revision is None else f"@{revision}")
        try:
            stored = load_checkpoint(name, family=family, **fields)
        except InputError as error:
            here = f", or load what is here with vitreous.load({repo_id!r})" if Path(repo_id).exists() else ""
            raise InputError(error.cause, (error.hint + here).removeprefix(", or ")) from error
        return cls.from_stored(stored).to(device or best_device())

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Puts the one complete file, and a card that says what it is, into a repository of the hub.

        Args:
            repo_id: owner/name; made if it is not there.
            private: whether a new repository is.
            token: of the owner; the one that huggingface_hub has if None.

        Returns:
            The address of the repository.

        Raises:
            InputError: the hub cannot be reached or refuses.
        """
        with TemporaryDirectory() as folder:
            metadata = published(self.metadata)
            save_model(Path(folder) / MODEL_FILE, self.model, self.preprocessing, self.class_names, metadata)
            write_text(Path(folder) / "README.md", self.card(repo_id))
            return push(Path(folder), repo_id, private=private, token=token, message=f"{self!r}")

    def card(self, repo_id: str = "owner/name") -> str:
        """The model's card for the hub, in Markdown: what it is, where it comes from, how to use it.

        Args:
            repo_id: where it will be.
        """
        return model_card(replace(self._stored(), metadata=published(self.metadata)), f"{self!r}", repo_id)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """Moves the model, in place."""
        self.model.to(device)
        return self

    def names(self) -> tuple[str, ...]:
        """The classes' names; those without one are "class 0" and so on.

        Raises:
            InputError: the model has no head.
        """
        count = self.model.config.num_classes
        if not count:
            cause = "this model has no head: it gives features, not classes"
            raise InputError(cause, "train a head first: vitreous train photos/")
        return self.class_names or tuple(f"class {i}" for i in range(count))

    def __call__(self, images: AnyImage | Sequence[AnyImage]) -> list[Prediction]:
        """Classifies photos.

        Args:
            images: paths, bytes of image files, or PIL images: one, or a list.

        Returns:
            One prediction for each, in their order.

        Raises:
            InputError: the model has no head.
            BadImage: an image cannot be read; `each` goes on to the next.
        """
        predictions = []
        for prediction in self.each(as_list(images)):
            if isinstance(prediction, BadImage):
                raise prediction
            predictions.append(prediction)
        return predictions

    def each(self, images: Sequence[AnyImage], batch_size: int = BATCH_SIZE) -> Iterator[Prediction | BadImage]:
        """Classifies any number of photos, a batch at a time; an image that cannot be read comes back as its error.

        Raises:
            InputError: the model has no head; before the first image is asked for.
        """
        return self._each(images, batch_size, self.names())

    def _each(
        self, images: Sequence[AnyImage], batch_size: int, names: Sequence[str]
    ) -> Iterator[Prediction | BadImage]:
        for labels, pixels in read_batches(images, self.preprocessing, batch_size):
            rows = iter(self._probabilities(pixels, len(names)) if pixels else ())
            for label in labels:
                if isinstance(label, BadImage):
                    yield label
                    continue
                values, indices = next(rows)
                yield Prediction(label, tuple((names[i], p) for i, p in zip(indices, values, strict=True)))

    def features(self, images: AnyImage | Sequence[AnyImage]) -> Float[Tensor, "images width"]:
        """Computes the representations y (equation 4) of photos, on the CPU.

        Raises:
            BadImage: an image cannot be read.
        """
        parts = [torch.empty(0, self.model.config.width)]
        for _, pixels in read_or_raise(as_list(images), self.preprocessing, BATCH_SIZE):
            with torch.inference_mode():
                parts.append(self.model.representation(self._inputs(pixels)).float().cpu())
        return torch.cat(parts)

    def explain(
        self, images: AnyImage | Sequence[AnyImage], class_name: str | None = None
    ) -> "Explanation | list[Explanation]":
        """Shows where the model looks in photos: attention rollout, and what speaks for a class.

        Args:
            images: as for calling; one, or a list.
            class_name: the class; the likeliest of each photo if None.

        Returns:
            One for one photo, a list for a list. They show themselves in notebooks; `save` writes their picture.

        Raises:
            BadImage: an image cannot be read.
            InputError: there is no such class.
        """
        from vitreous.explain.chunks import images_at_once
        from vitreous.explain.explanation import explain_batch

        photos, config, size = as_list(images), self.model.config, self.preprocessing.image_size
        names = self.names() if config.num_classes else ()
        count = min(BATCH_SIZE, images_at_once(config, size, with_gradient=bool(names)))
        found: list[Explanation] = []
        for labels, pixels in read_or_raise(photos, self.preprocessing, count):
            found += explain_batch(self.model, self._inputs(pixels), labels, pixels, names, class_name)
        return found if photos is images else found[0]

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

        Both share the memory of every parameter that stays: copy one of them before it is trained while the other
        is still used. `changes` of the new one says what was done.

        Args:
            image_size: pixels, (height, width) or one number; the preprocessing follows.
            patch_size: as image_size; images stay as they are.
            num_classes: of a new head, all zero; 0 for none.
            class_names: of the new head, one for each class.
            channels: of the images; for 1 and 3 the preprocessing follows, with the mean of its statistics.
            resampling: how positions are resampled; the weights' own way if None.
            channel_method: "average" gives every new channel the mean of the old ones, "repeat" the old ones in turn.

        Raises:
            InputError: a value is not valid, or does not fit the others.
        """
        if class_names is not None and num_classes is None:
            num_classes = len(class_names)
        sizes: dict[str, Any] = {"image_size": image_size, "patch_size": patch_size, "num_classes": num_classes}
        ways: dict[str, Any] = {"resampling": resampling, "channel_method": channel_method}
        model, changes = adapt(self.model, channels=channels, **sizes, **ways)
        if class_names is None and num_classes is None:
            class_names = self.class_names
        size = self.preprocessing.image_size if image_size is None else model.config.image_size
        try:
            grid_of(size, model.config.token_stride)
        except InputError as error:
            raise InputError(f"the preprocessing gives {error.cause}", error.hint) from error
        preprocessing = self.preprocessing.adapted(size, model.config.channels)
        return Classifier(model, preprocessing, class_names, self.metadata, self.report, [*self.changes, *changes])

    def export(
        self,
        out: str | Path,
        to: str,
        *,
        plain: bool = False,
        dtype: torch.dtype | None = None,
        overwrite: bool = False,
    ) -> ExportReport:
        """Writes the model in the format of a family; `vitreous.checkpoints.export.export_model` says how.

        Args:
            out: a file or a folder.
            to: the family, such as "timm"; "vitreous" for our own file.
            plain: spell the keys as the family usually does, not as the file that the model came from.
            dtype: of the numbers that are written; that of the file the weights came from if None.
            overwrite: replace what is there.

        Raises:
            InputError: the family cannot hold the model, what it lacks is named; or `out` cannot be written.
        """
        return export_model(self._stored(), to, out, plain=plain, dtype=dtype, overwrite=overwrite)

    def save(self, path: str | Path) -> None:
        """Writes the one complete file, atomically; `vitreous.load` reads it."""
        save_model(path, self.model, self.preprocessing, self.class_names, self.metadata)

    def __repr__(self) -> str:
        c = self.model.config
        size = "×".join(map(str, self.preprocessing.image_size))
        classes = "no head" if not c.num_classes else f"{c.num_classes} classes"
        return f"Classifier({c.depth} blocks of width {c.width}, {size} pixels, {classes})"

    def _repr_html_(self) -> str:
        return f"<code>{html_text(repr(self))}</code><br>{html_text(', '.join(self.class_names or ()))}"

    def _stored(self) -> StoredModel:
        return StoredModel(self.model, self.preprocessing, self.class_names, self.metadata, self.report)

    def _inputs(self, pixels: list[Tensor]) -> Tensor:
        return self.preprocessing.normalize(torch.stack(pixels).to(self.device))

    @torch.inference_mode()
    def _probabilities(self, pixels: list[Tensor], classes: int) -> Iterator[tuple[list[float], list[int]]]:
        top = self.model(self._inputs(pixels)).float().softmax(dim=-1).topk(min(TOP, classes))
        return zip(top.values.tolist(), top.indices.tolist(), strict=True)


def load(source: str | Path, device: str | None = None, *, family: str | None = None, **fields: Any) -> Classifier:
    """Loads a classifier: weights with the preprocessing and the class names that belong to them.

    Args:
        source: a run's folder; a weights file of ours or of any family (.safetensors, .npz, .pth, .bin); a folder as
            the hubs keep it; a name: hf:owner/name, timm:name.tag, torchvision:name, google:name, meta:name
            (`vitreous list models`); or an https address that ends in #sha256= and its checksum.
        device: "cuda", "mps", "cpu"; the best there is if None.
        family: whose file it is, where its keys fit several.
        **fields: fields of ViTConfig that the file does not hold, such as `num_heads=3`.

    Raises:
        InputError: there is no model there, or not one that can be read.
    """
    return Classifier.from_stored(load_checkpoint(source, family=family, **fields)).to(device or best_device())


def train(
    data: str | Path,
    model: str = "auto",
    recipe: "str | Path | Recipe | None" = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    init: str | None = None,
) -> Classifier:
    """Trains a classifier, as `vitreous train` does, and leaves a run's folder.

    Args:
        data: "digits", or a folder of images in one folder per class, or such a zip archive.
        model: a variant such as "S/16", from scratch; or weights, as `load` takes them; "auto" takes known ones where
            they are at hand, and else what fits the images.
        recipe: a TOML file, a built-in name, also with options ("augreg+light1"), or a Recipe; the usual one if None.
        out: the run's folder, new or empty, and outside the data; by default runs/ and the name of the data.
        settings: values that differ from the recipe's, by leaf or dotted path, such as {"lr": 1e-3}.
        init: "random" for fresh weights, "pretrained" for known ones of the variant; as the recipe says if None.

    Returns:
        The best on validation, as the run's folder holds it.

    Raises:
        InputError: anything of these is not usable, and no folder is made; or training cannot go on.
    """
    from vitreous.training.run import run_training

    return load(run_training(data, model, recipe, out, settings, init=init).folder)
