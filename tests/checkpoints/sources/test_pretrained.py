"""The table of published weights."""

import re
from urllib.parse import urlsplit

import pytest
from timm.models import get_pretrained_cfg, list_pretrained
from torchvision.models import get_model_weights, list_models

from vitreous.checkpoints.sources import pretrained
from vitreous.checkpoints.sources.hub import is_remote
from vitreous.checkpoints.sources.pretrained import KNOWN, Pretrained, augreg, row_for
from vitreous.model.cost import nominal_multiply_adds, parameter_count
from vitreous.support.errors import InputError

FAMILIES = {"google", "timm", "huggingface", "torchvision", "deit", "dino", "dinov2", "mae", "clip", "siglip"}


@pytest.mark.parametrize("row", KNOWN.values(), ids=KNOWN)
def test_a_row_is_complete_and_can_be_built(row):
    scheme = row.name.partition(":")[0]
    assert is_remote(row.name)
    assert row.family in FAMILIES
    assert (row.url is not None) == (scheme in ("google", "meta"))
    assert row.top1 is None or 50 < row.top1 < 100
    assert row.top1 is None or row.num_classes == 1000
    assert row.checksum is None or re.fullmatch(r"(sha256:[0-9a-f]{8}|md5:[0-9a-f]{6})", row.checksum)
    assert row.config.num_classes == row.num_classes
    assert row.fields["num_heads"] == row.config.num_heads
    assert row.fields["image_size"] == (row.image_size, row.image_size)


def test_addresses_are_timms_where_timm_has_them():
    """timm's own table has most addresses of Google and Meta, with the size and classes of their models."""
    theirs = {}
    for name in list_pretrained(["vit_*", "deit*"]):
        config = get_pretrained_cfg(name)
        assert config is not None
        theirs[config.url] = config
    shared = [row for row in KNOWN.values() if row.url in theirs]
    assert len(shared) > 70
    for row in shared:
        config = theirs[row.url]
        assert config.input_size == (3, row.image_size, row.image_size), row.name
        assert config.num_classes == row.num_classes, row.name
        assert (config.license or "").casefold() == (row.license or "").casefold(), row.name


def test_addresses_lead_to_their_makers_and_differ():
    hosts = {"google": "storage.googleapis.com", "meta": "dl.fbaipublicfiles.com"}
    urls = [row.url for row in KNOWN.values() if row.url]
    assert len(urls) == len(set(urls))
    for row in KNOWN.values():
        if row.url:
            assert (urlsplit(row.url).scheme, urlsplit(row.url).hostname) == ("https", hosts[row.name.split(":")[0]])
            assert row.suffix in (".npz", ".pth")


def test_torchvisions_rows_are_its_enums():
    ours = {row.name for row in KNOWN.values() if row.family == "torchvision"}
    theirs = {}
    for model in list_models(include="vit_*"):
        theirs |= {f"torchvision:{model}.{weights.name}": weights for weights in get_model_weights(model)}
    assert ours == set(theirs)
    for name, weights in theirs.items():
        row, meta = KNOWN[name], weights.meta
        assert row.top1 == meta["_metrics"]["ImageNet-1K"]["acc@1"], name
        assert row.size == round(meta["_file_size"] * 2**20), name
        assert (row.image_size, row.image_size) == meta["min_size"], name
        assert row.num_classes == len(meta["categories"]), name
        assert parameter_count(row.config) == meta["num_params"], name
        assert nominal_multiply_adds(row.config) / 1e9 == pytest.approx(meta["_ops"], rel=0.01), name
        assert row.license == ("CC-BY-NC-4.0" if "SWAG" in meta.get("license", "") else "see torchvision"), name


def test_shapes_have_the_published_parameters():
    """In millions, as the READMEs of DeiT III and the model cards of DINOv2 and CLIP have them."""
    millions_of = {"deit_3_medium_224_1k": 38.8, "deit_3_huge_224_1k": 632.1, "dinov2_vitg14": 1136.5}
    millions_of |= {"deit_base_distilled_patch16_384": 87.6, "mae_pretrain_vit_huge": 630.8}
    for name, millions in millions_of.items():
        assert parameter_count(row_for(f"meta:{name}").config) / 1e6 == pytest.approx(millions, abs=0.1), name


def test_any_augreg_file_is_known_by_its_name():
    row = row_for("google:S_32-i21k-90ep-lr_0.001-aug_strong1-wd_0.1-do_0.1-sd_0.1--cifar10-steps_2k-lr_0.003-res_384")
    assert row.url is not None
    assert row.url.endswith("/augreg/" + row.name.removeprefix("google:") + ".npz")
    assert (row.variant, row.image_size, row.num_classes) == ("S/32", 384, 10)
    hybrid = augreg("R_Ti_16-i1k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0")
    assert isinstance(hybrid, Pretrained)
    assert (hybrid.variant, hybrid.image_size, hybrid.num_classes) == ("R+Ti/16", 224, 1000)
    for name in ("S_32", "S_32-i21k-90ep-lr_0.001-aug_../..-wd_0.1-do_0.1-sd_0.1", "ViT-B_16"):
        assert augreg(name) is None


def test_a_name_is_found_with_and_without_its_folder():
    assert row_for("google:imagenet21k/ViT-B_16") is row_for("google:ViT-B_16")
    with pytest.raises(InputError, match=r"there are no weights 'google:ViT-B_17'; did you mean 'google:ViT-B_1"):
        row_for("google:ViT-B_17")
    with pytest.raises(InputError, match="list models"):
        row_for("google:")
    assert pretrained.suggestion("hf:google/vit-base-patch16-22") == "did you mean 'hf:google/vit-base-patch16-224'?"
