"""What a format cannot hold is named in plain words, once."""

from typing import get_args

import pytest

from tests.model.models import small_model
from vitreous.checkpoints.families.jax import BigVision, SigLIP
from vitreous.checkpoints.families.recognize import FAMILIES
from vitreous.checkpoints.families.shared.holds import POOLINGS, POSITIONS, ROTARY_WORDS, STEM_EPS
from vitreous.model.config import Pooling, PositionKind, RotaryKind, StemEps

INSIDE = {"position_site": "every_layer"}
CHANGES = [
    *({"position_embedding": kind} for kind in get_args(PositionKind) if not kind.startswith("relative")),
    *({"position_embedding": kind} | INSIDE for kind in get_args(PositionKind) if kind.startswith("relative")),
    *({"pooling": kind} for kind in get_args(Pooling)),
    *({"rotary": kind, "position_embedding": "none"} for kind in get_args(RotaryKind)),
    *({"class_token": False, "pooling": kind} for kind in ("mean", "attention")),
]


def test_every_choice_has_words():
    assert {*POSITIONS} == {*get_args(PositionKind)}
    assert {*POOLINGS} == {*get_args(Pooling)}
    assert {*ROTARY_WORDS} == {*get_args(RotaryKind)}
    assert {*STEM_EPS} == {*get_args(StemEps)}


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(map(str, changes.values())))
def test_what_no_format_holds_is_named_without_identifiers_and_once(changes):
    config = small_model().config.replace(**changes)
    for family in FAMILIES.values():
        named = family.unsupported(config)
        assert not [words for words in named if "_" in words or "eva02" in words], family.title
        assert len({*named}) == len(named)
        assert not [a for a in named for b in named if a != b and a in b and "pooling" in a], family.title


@pytest.mark.parametrize("site", ["every_layer", "shared"])
@pytest.mark.parametrize(("kind", "words"), [("relative", "relative positions"), ("relative_bias", "relative biases")])
def test_relative_positions_are_not_named_again_as_inside_the_encoder(kind, words, site):
    config = small_model().config.replace(position_embedding=kind, position_site=site)
    assert FAMILIES["google"].unsupported(config) == [words]


def test_pooling_beside_a_class_token_is_named_once():
    config = small_model().config
    assert BigVision().unsupported(config.replace(pooling="mean")) == ["mean pooling with a class token"]
    both = config.replace(pooling="class_token_and_mean")
    assert BigVision().unsupported(both) == ["pooling of class token and mean"]
    assert "attention pooling with a class token" not in SigLIP().unsupported(config.replace(pooling="attention"))
