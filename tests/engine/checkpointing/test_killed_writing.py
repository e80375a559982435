"""A writer of checkpoints may be killed at any moment: a sample of the 200 kills in tests/long."""

from killed_writers import kill_writers


def test_whatever_moment_a_writer_is_killed_at_the_newest_checkpoint_is_whole(tmp_path):
    result = kill_writers(tmp_path, num_kills=15, seed=1)
    assert result["last_step"] > 5  # they did write
