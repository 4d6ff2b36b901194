"""Run by torchrun on three ranks: what the processes of a group agree on. Prints the rank's number when all is well."""

from collections.abc import Callable, Iterator

import torch
from torch import distributed as dist

from vitreous.data.loading.batches import Batch
from vitreous.support.errors import InputError
from vitreous.training.parallel.group import Group
from vitreous.training.parallel.place import Place


def failing(action: Callable[[], object]) -> str:
    """The message with which an action fails."""
    try:
        action()
    except InputError as error:
        return str(error)
    return "nothing"


def refuse() -> None:
    raise InputError("the disk is full", "free some space")


def batches(rank: int, broken: int | None = None) -> Iterator[Batch]:
    """Two batches, of which a rank has as many images as its number; one of them is broken on the last rank."""
    for number in range(2):
        if number == broken:
            raise InputError("a loading process died")
        labels = torch.zeros(rank, dtype=torch.int64)
        batch = Batch.whole(torch.zeros(rank, 3, 8, 8, dtype=torch.uint8), labels, labels)
        batch.bad = [("a.png", "no image")] if rank == 2 and number == 1 else []
        yield batch


def check(group: Group) -> None:
    """Every rank sees the same."""
    rank = group.rank
    assert group.highest(rank, -rank, 7) == [2, 0, 7]
    assert group.from_first({"rank": rank, "nan": float("inf")}) == {"rank": 0, "nan": float("inf")}
    assert group.gather([rank] * rank) == [[], [1], [2, 2]]
    pieces = group.pieces(torch.full((rank, 2), float(rank)))
    assert [piece.tolist() for piece in pieces] == [[], [[1.0, 1.0]], [[2.0, 2.0]] * 2]

    acted: list[int] = []
    group.lead(lambda: acted.append(rank))
    assert acted == ([0] if rank == 0 else [])
    assert failing(lambda: group.lead(refuse)) == "the disk is full; free some space"
    assert failing(lambda: group.agree(refuse if rank == 1 else lambda: None)) == "the disk is full; free some space"
    assert group.agree(lambda: rank * 10) == rank * 10

    turns = [*group.turns(batches(rank))]
    assert [(len(turn.batch), turn.count, turn.most) for turn in turns] == [(rank, 3, 2)] * 2
    assert [turn.bad for turn in turns] == [[], [("a.png", "no image")]]
    assert failing(lambda: [*group.turns(batches(rank, broken=1 if rank == 1 else None))]) == "a loading process died"


if __name__ == "__main__":
    for _ in range(2):  # a process can join a group again
        with Group(Place.here()) as group:
            check(group)
        assert not dist.is_initialized()
    print(group.rank)
