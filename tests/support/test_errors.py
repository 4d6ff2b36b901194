"""Errors are one line of cause and hint, and suggest the nearest name."""

import pickle

from vitreous.support.errors import InputError, nearest, unknown


def test_an_error_is_cause_and_hint_on_one_line():
    assert str(InputError("no such folder", "make it")) == "no such folder; make it"
    assert str(InputError("no such folder")) == "no such folder"
    assert isinstance(InputError("x"), ValueError)


def test_quoted_names_cannot_break_the_line_or_color_the_terminal():
    text = str(InputError("bad name a\nb\x1b[31m\u202e"))
    assert text == "bad name a\\nb\\x1b[31m\\u202e"


def test_an_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(InputError("cause", "hint")))
    assert (error.cause, error.hint, str(error)) == ("cause", "hint", "cause; hint")


def test_the_nearest_name_ignores_case():
    assert nearest("LRR", ["lr", "weight_decay"]) == "lr"
    assert nearest("b/16", ["B/16", "L/16"]) == "B/16"
    assert nearest("nothing like it", ["lr"]) is None


def test_an_unknown_name_lists_the_choices():
    error = unknown("recipe key", "lrr", ["lr", "epochs"])
    assert str(error) == "there is no recipe key 'lrr'; did you mean 'lr'? choose from: lr, epochs"
    assert "did you mean" not in str(unknown("recipe key", "zzz", ["lr"]))
    assert "there are none" in str(unknown("recipe key", "lrr", []))
