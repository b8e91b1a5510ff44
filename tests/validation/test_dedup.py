"""The retry window against a plain list of all that was ever accepted."""

from hypothesis import given
from hypothesis import strategies as st

from engine.validation.dedup import ENTRY, FirstAnswer, RetryWindow
from engine.validation.options import RetryLimits

U64 = 2**64 - 1
increments = st.lists(st.integers(1, 2**20), max_size=40)
limits = st.integers(1, 12)


def remembered(increments, claims_max):
    """Return a window, and a list of every answer it was ever given."""
    window, answers, amount = RetryWindow(), [], 0
    for sequence, increment in enumerate(increments, 1):
        amount += increment
        answer = FirstAnswer(sequence, amount, sequence * 3, sequence * 1_000)
        answers.append(answer)
        window.remember(answer.amount, answer.position, answer.at, RetryLimits(claims_max, U64))
    return window, answers


@given(increments, limits, st.integers(-3, 50))
def test_the_newest_answers_are_found_by_number_and_no_others(increments, claims_max, sequence):
    window, answers = remembered(increments, claims_max)
    kept = {answer.sequence: answer for answer in answers[-claims_max:]}
    assert window.by_sequence(len(answers), sequence) == kept.get(sequence)
    assert len(window) == len(kept)


@given(increments, limits, st.data())
def test_the_newest_answers_are_found_by_amount_and_no_others(increments, claims_max, data):
    window, answers = remembered(increments, claims_max)
    kept = {answer.amount: answer for answer in answers[-claims_max:]}
    amounts = [answer.amount for answer in answers] or [1]
    near = st.sampled_from(amounts).flatmap(lambda one: st.integers(one - 1, one + 1))
    amount = data.draw(near | st.integers(0, U64))
    assert window.by_amount(len(answers), amount) == kept.get(amount)


@given(increments, limits)
def test_a_window_comes_back_from_its_bytes(increments, claims_max):
    window, answers = remembered(increments, claims_max)
    again = RetryWindow(bytes(window))
    assert bytes(again) == bytes(window)
    for answer in answers:
        assert again.by_sequence(len(answers), answer.sequence) == window.by_sequence(
            len(answers), answer.sequence
        )


def test_a_window_takes_24_bytes_a_claim_and_the_largest_numbers():
    window = RetryWindow()
    window.remember(U64, U64, U64, RetryLimits(4, 0))
    assert len(bytes(window)) == ENTRY.size == 24
    assert window.by_sequence(7, 7) == FirstAnswer(7, U64, U64, U64)


def test_a_window_shrinks_to_a_lower_limit_as_soon_as_a_claim_comes():
    window, _ = remembered([1] * 10, 10)
    window.remember(11, 33, 11_000, RetryLimits(3, U64))
    assert len(window) == 3
    assert window.by_sequence(11, 8) is None
    assert window.by_sequence(11, 9).amount == 9


def test_answers_older_than_the_window_go_sixteen_at_every_eighth_claim():
    window, _ = remembered([1] * 47, 100)  # at 1,000 to 47,000 ns
    sizes = []
    for _ in range(18):
        window.remember(48, 144, 48_000, RetryLimits(100, 28_000))
        sizes.append(len(window))
    assert sizes == [32, *range(33, 40), 37, *range(38, 47)]
    assert bytes(window)[:24] == ENTRY.pack(20, 60, 20_000)


@given(increments, st.integers(0, 130))
def test_the_answers_newer_than_a_position_are_those_at_the_end(increments, position):
    window, answers = remembered(increments, 100)
    newer = [answer for answer in answers if answer.position > position]
    assert window.newer_than(position) == bytes(window)[len(bytes(window)) - 24 * len(newer) :]
