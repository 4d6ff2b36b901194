"""The table of `make published`, without a network: a checkpoint of each family, under a name that leads somewhere."""

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import timm
import torchvision
import transformers
from huggingface_hub import hf_hub_url
from huggingface_hub.utils import validate_repo_id

from benchmarks.coverage.families import FAMILIES as ROWS
from tests.published.checkpoints import PUBLISHED, Published
from tests.published.comparisons import PEERS
from tests.published.comparisons import test_real_weights_give_the_outputs_of_their_own_library as compare
from vitreous.checkpoints.export import export_model
from vitreous.checkpoints.families.recognize import FAMILIES
from vitreous.checkpoints.sources.hub import is_remote
from vitreous.checkpoints.sources.pretrained import row_for
from vitreous.checkpoints.store import StoredModel
from vitreous.data.preprocessing import Preprocessing
from vitreous.model.initialization import fill_at_random
from vitreous.model.vit import VisionTransformer

SENT_ON_REQUEST = {"dinov3"}  # Meta sends a signed address; the hub has the same weights in two other layouts

EACH = pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)


def test_every_family_has_a_checkpoint():
    assert {row.title for row in ROWS if row.example} == {published.title for published in PUBLISHED}
    assert {published.layout for published in PUBLISHED} | SENT_ON_REQUEST == set(FAMILIES)


def address_of(name: str) -> str:
    """Where a name is downloaded from."""
    scheme, _, rest = name.partition(":")
    if scheme == "https":
        return name
    if scheme in ("google", "meta"):
        return row_for(name).url or ""
    if scheme == "torchvision":
        model, _, weights = rest.partition(".")
        return torchvision.models.get_model_weights(model)[weights].url
    owner, repository, *file = f"timm/{rest}".split("/") if scheme == "timm" else rest.split("/")
    validate_repo_id(f"{owner}/{repository}")
    return hf_hub_url(f"{owner}/{repository}", "/".join(file) or "config.json")


@EACH
def test_every_name_has_an_address(published: Published):
    assert published.name.startswith("https://") or is_remote(published.name)
    parts = urlsplit(address_of(published.name))
    assert parts.scheme == "https"
    assert "." in (parts.hostname or "")
    assert len(parts.path) > 5


def transformers_source() -> str:
    """The names of checkpoints in transformers' own code."""
    folder = Path(transformers.__file__).parent / "models"
    return "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*/*.py"))


def test_every_peer_knows_its_model():
    """A name that timm or torchvision lists, or that transformers' own code gives as an example."""
    pretrained, source = set(timm.list_pretrained()), transformers_source()
    for published in PUBLISHED:
        assert published.peer in PEERS
        if published.peer.startswith("timm"):
            assert published.model in pretrained
        elif published.peer == "transformers":
            assert re.search(rf"['\"`/]{re.escape(published.model)}['\"`\])]", source), published.model
        else:
            model, _, weights = published.model.partition(".")
            assert weights in torchvision.models.get_model_weights(model).__members__


def test_timm_lists_the_addresses_of_files_without_a_scheme_of_ours():
    """These addresses are in no table of vitreous: timm's own table has the same bucket."""
    known = [timm.models.get_pretrained_cfg(name).url or "" for name in timm.list_pretrained()]
    assert all(
        published.name in known or published.layout == "siglip"
        for published in PUBLISHED
        if published.name.startswith("https:")
    )


def test_the_comparison_finds_a_wrong_activation(tmp_path: Path):
    """The comparison of `make published` on a file of random weights, with timm's right GELU and its wrong one."""
    model = VisionTransformer.from_variant("Ti/16", num_classes=1000, gelu="tanh")
    fill_at_random(model)
    file = tmp_path / "Ti_16.npz"
    export_model(StoredModel(model, Preprocessing((224, 224))), "google", file)
    [published] = [published for published in PUBLISHED if published.layout == "google"]
    compare(replace(published, name=str(file)), tmp_path)
    with pytest.raises(AssertionError):
        compare(replace(published, name=str(file), arguments={}), tmp_path)
