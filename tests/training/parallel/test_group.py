"""What the processes of a run tell each other."""

from pathlib import Path

import pytest

from tests.training.parallel.launching import torchrun
from vitreous.support.errors import REPORTED, InputError
from vitreous.training.parallel.group import ALONE_GROUP


def test_three_ranks_agree():
    done = torchrun(Path(__file__).with_name("group_script.py"), ranks=3)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1", "2"]


def test_a_process_alone_tells_itself(tmp_path):
    group = ALONE_GROUP
    assert group.highest(3, 1) == [3, 1]
    assert group.from_first("x") == "x"
    assert group.gather((1, 2)) == [(1, 2)]
    assert group.agree(lambda: 5) == 5
    with pytest.raises(InputError, match="full") as raised, group:
        group.lead(lambda: (_ for _ in ()).throw(InputError("full")))
    assert not hasattr(raised.value, REPORTED)
