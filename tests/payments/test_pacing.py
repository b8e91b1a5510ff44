"""What a transaction of a long job does follows from what the ones before it took."""

from engine.payments.pacing import GOAL_S, Pace


def test_a_size_follows_the_time_that_it_took():
    pace = Pace(25, 150)
    sizes = []
    for took_s in (GOAL_S / 1_000, 0.0, GOAL_S / 4, GOAL_S, 2 * GOAL_S, 60.0, GOAL_S):
        pace.follow(took_s)
        sizes.append(pace.size)
    assert sizes == [50, 100, 150, 150, 75, 25, 25]
