"""Tensors that a file has in parts: shapes joined, rules divided, and both in step."""

import torch

from vitreous.checkpoints.families.shared.key_map import rule, to_ours, to_theirs
from vitreous.checkpoints.families.shared.split import Split, divided, merged

SPLITS = (Split("a.whole", ("a.left", "a.right")), Split("token", ("other",)))
SHAPES = {"m/x.a.left": (2, 3), "m/x.a.right": (4, 3), "m/other": (1,), "m/another": (5,), "m/y.a.left": (2, 3)}


def test_parts_are_joined_and_names_changed():
    expected = {"m/x.a.whole": (6, 3), "m/token": (1,), "m/another": (5,), "m/y.a.left": (2, 3)}
    assert merged(SHAPES, SPLITS) == expected


def test_a_scalar_has_no_first_axis():
    assert merged({"a.left": (), "a.right": ()}, SPLITS) == {"a.left": (), "a.right": ()}


def test_rules_are_divided_and_invert():
    rules = divided([rule("ours", "m/x.a.whole"), rule("token", "m/token"), rule("kept", "m/untoken")], SPLITS)
    assert [r.theirs for r in rules] == [("m/x.a.left", "m/x.a.right"), ("m/other",), ("m/untoken",)]
    theirs = {"m/x.a.left": torch.rand(2, 3), "m/x.a.right": torch.rand(2, 3), "m/other": torch.rand(1)}
    theirs["m/untoken"] = torch.rand(2)
    shapes = {"ours": torch.Size((4, 3)), "token": torch.Size((1,)), "kept": torch.Size((2,))}
    ours = to_ours(theirs, rules, shapes, "file")
    again = to_theirs(ours, rules)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)
