"""The model card for the hub: what the model is, where it comes from, how to use it."""

import json
import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from vitreous.checkpoints.files.layout import INDEX, KINDS
from vitreous.checkpoints.store import StoredModel
from vitreous.support.text import html_text, printable

# The hub's identifiers for the licenses of ViT weights; others are given as "other" with a name.
HUB_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")


def model_card(stored: StoredModel, title: str, repo_id: str) -> str:
    """A card in Markdown with YAML front matter.

    Args:
        stored: the model; the strings and numbers of its metadata are listed.
        title: the heading.
        repo_id: the repository, owner/name.
    """
    has_classes = stored.model.config.num_classes > 0
    task, use = "image-feature-extraction", 'clf.features("photo.jpg")'
    if has_classes:
        task, use = "image-classification", 'clf("photo.jpg")'
    facts = [f"- {key}: {value}" for key, value in stored.metadata.items() if isinstance(value, str | int | float)]
    front = ["library_name: vitreous", f"pipeline_tag: {task}", "tags: [vision-transformer, vit]"]
    return "\n".join(
        [
            *("---", *front, *license_lines(stored.metadata.get("license")), "---", ""),
            *(f"# {title}", "", f"Images are {stored.preprocessing.summary()}."),
            *(["", f"Classes: {html_text(', '.join(stored.class_names))}."] if stored.class_names else []),
            *(["", *map(html_text, facts)] if facts else []),
            *("", "```python", "import vitreous as vt", "", f'clf = vt.load("hf:{repo_id}")', use, "```", ""),
        ]
    )


def published(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that is safe to publish: no local paths and no URL queries in the source."""
    source = metadata.get("source")
    if not isinstance(source, str):
        return dict(metadata)
    if re.match("[a-z]{2,}:", source):
        return {**metadata, "source": re.sub(r"\?[^#]*", "", source)}
    path = PureWindowsPath(source)  # splits at either slash
    if path.anchor or source.endswith((*KINDS, INDEX)):
        return {**metadata, "source": path.name}
    return dict(metadata)


def license_lines(license: Any) -> list[str]:
    """The license as YAML for the hub; no lines if it is unknown."""
    if not isinstance(license, str) or not license:
        return []
    if license.lower() in HUB_LICENSES:
        return [f"license: {license.lower()}"]
    return ["license: other", f"license_name: {json.dumps(printable(license), ensure_ascii=False)}"]
