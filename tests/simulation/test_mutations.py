"""Each rule of the protocol, taken out: the simulation notices. With all rules in, the same seeds are clean."""

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import simulate

# The first seeds that found each; what is drawn changes with the simulation, so others are tried after them.
FOUND_BY = {
    "accept_without_fence": 5,
    "accept_if_idle": 0,
    "accept_into_deleted": 142,
    "accept_without_version": 142,
    "expiry_not_looked_at_again": 2189,
    "purge_as_it_is": 3402,
    "purge_without_record": 906,
    "checkpoint_without_lease": 52,
    "checkpoint_without_beat": 52,
    "end_without_lease": 630,
    "end_twice": 281,
    "take_over_without_beat": 7784,
    "take_over_without_lease": 63,
    "cancel_without_turn": 1349,
    "without_uid": 352,
    "look_up_before_read": 1045,
    "look_up_once": 160,
    "keys_without_later_ones": 16,
    "hand_over_without_rest": 15,
    "turns_before_session": 700,
    "archive_before_session": 521,
    "replace_before_archive": 10,
    "archive_unconfirmed": 499,
    "unknown_taken_for_refused": 138,
    "one_look_decides": 167,
    "accept_in_the_callers_task": 110,
    "fields_not_compared": 5,
    "expectation_ignored": 1,
    "expired_says_not_committed": 6,
    "last_come_first_served": 66,
    "decided_again_at_each_try": 53,
    "told_before_it_is_saved": 1,
    "refused_end_taken_for_own": 281,
    "refused_checkpoint_taken_for_own": 2715,
    "part_grows_between_tries": 257,
    "consume_without_own_clock": 63,
    "cancel_forgotten": 63,
    "saved_text_asked_again": 18,
    "decided_from_what_was_read": 3957,
    "recognised_by_number": 6244,
    "lost_at_first_sight": 0,
    "no_scan": 0,
    "cursor_without_fence": 47,
    "first_to_leave_cancels": 274,
}
_MOST_SEEDS = 4000


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_found(name: str) -> None:
    mutation, known = MUTATIONS[name], FOUND_BY.get(name)
    seeds = range(_MOST_SEEDS) if known is None else (known, *range(_MOST_SEEDS))
    found = next((seed for seed in seeds if simulate(seed, mutation=mutation).violations), None)
    assert found is not None, f"{_MOST_SEEDS} seeds do not notice that this is broken: {mutation.rule}"


@pytest.mark.parametrize("seed", sorted(set(FOUND_BY.values())))
def test_without_a_broken_rule_the_same_seed_is_clean(seed: int) -> None:
    assert simulate(seed).violations == ()
