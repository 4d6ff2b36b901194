"""What torchrun says about a process."""

import os

import pytest

from vitreous.data.loading.shares import ALONE, Share
from vitreous.support.errors import InputError
from vitreous.support.host import usable_cores
from vitreous.training.parallel.place import Place, job, rank_seed

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "2", "OMP_NUM_THREADS": "1",
}  # fmt: skip


def test_the_place_is_that_of_the_environment():
    assert Place.here(TORCHRUN) == Place(Share(5, 8), 1, 4, is_launched=True, restarts=2)
    assert not Place.here(TORCHRUN).leads
    assert Place.here({}) == Place(ALONE)
    single = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert Place.here(single) == Place(ALONE)  # some schedulers set these for each job
    assert Place.here(single | {"TORCHELASTIC_RUN_ID": "none"}) == Place(ALONE, is_launched=True)
    assert Place.here({}).leads


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, r"WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT not set; start the processes with"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}, r"WORLD_SIZE is 2, but MASTER_ADDR not set"),
        (TORCHRUN | {"RANK": "8"}, r"RANK is 8 and WORLD_SIZE 8"),
        (TORCHRUN | {"WORLD_SIZE": "many"}, r"WORLD_SIZE is 'many' in the environment, and not a number"),
    ],
)
def test_an_environment_that_makes_no_sense(environment, message):
    with pytest.raises(InputError, match=message):
        Place.here(environment)


def test_the_command_that_starts_as_many():
    assert Place().launch == ""
    assert Place(Share(0, 4), 0, 4).launch == "torchrun --standalone --nproc-per-node=4 -m "
    assert Place(Share(0, 8), 0, 4).launch == "torchrun … -m "


def test_processes_share_the_cores():
    place = Place.here(TORCHRUN)
    assert place.cores == max(1, usable_cores() // 4)
    assert place.threads("auto", TORCHRUN) == place.cores
    assert place.threads(3, TORCHRUN) == 3
    assert place.threads("auto", TORCHRUN | {"OMP_NUM_THREADS": "2"}) is None
    assert Place().threads("auto", {"OMP_NUM_THREADS": "1"}) is None


def test_ranks_draw_other_numbers():
    seeds = {rank_seed(seed, rank, step) for seed in (0, 1) for rank in range(50) for step in (0, 7)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_job_is_the_process_that_started_this_one(monkeypatch):
    assert job() == job()
    assert str(os.getppid()) in job()
    before = job()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert job() != before
