"""How ranks join a run, without the others: what torch is asked for."""

from datetime import timedelta

import pytest
from torch.distributed import HashStore

from engine import dist


@pytest.fixture
def joined(monkeypatch):
    """Joins as rank 1 of 2 and gives the time that the ranks wait for each other in a collective."""

    def join(*arguments):
        asked = []
        monkeypatch.setattr(dist, "meet", lambda timeout_s: HashStore())
        monkeypatch.setattr(dist.torch_dist, "init_process_group", lambda *names, **given: asked.append(given))
        for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        assert dist.start_ranks("cpu", *arguments).rank == 1
        return asked[0]["timeout"]

    return join


@pytest.mark.parametrize("hang_timeout_s", [0.0, 5.0, 1800.0])
def test_where_a_watchdog_or_a_person_judges_no_collective_gives_up_first(joined, hang_timeout_s):
    assert joined(hang_timeout_s) >= timedelta(days=7)
    assert joined(hang_timeout_s) / timedelta(milliseconds=1) < 2**31


def test_ranks_that_nobody_watches_wait_ten_minutes_for_each_other(joined):
    assert joined() == timedelta(minutes=10)
