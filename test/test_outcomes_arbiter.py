"""Who is believed, and that an episode ends once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.outcomes.arbiter import Arbiter, ArbiterConfig, RewardConfig
from llmagent_ros.outcomes.claims import Authority, Claim
from llmagent_ros.types import Judgement, Outcome

YES, NO = Judgement("success"), Judgement("failure")
DOCKED = Claim(Authority.CONDITION, True, "docked")
BUMPED = Claim(Authority.CONDITION, False, "bumped")
SEEN = Claim(Authority.CLASSIFIER, True, "recognised")


def begun(time_limit: float = 0.0, task: str = "a", at: float = 100.0) -> Arbiter:
    """An arbiter with an episode that has begun."""
    arbiter = Arbiter(ArbiterConfig(0.4, time_limit))
    arbiter.announce(task)
    assert arbiter.begin(task, at)
    return arbiter


def end(arbiter: Arbiter, now: float) -> tuple[bool, bool, bool, str, float]:
    outcome = arbiter.tick(now)
    assert outcome is not None and outcome.ended
    return outcome.terminated, outcome.truncated, outcome.success, outcome.reason, outcome.reward


def test_each_control_period_has_an_outcome_from_the_first_decision_on() -> None:
    arbiter = Arbiter(ArbiterConfig(0.4))
    assert arbiter.tick(99.0) is None
    arbiter.announce("a")
    assert arbiter.tick(99.5) is None and not arbiter.is_open, "the policy takes none before its first decision"
    assert not arbiter.begin("b", 99.9), "of another task"
    assert arbiter.begin("a", 100.0) and not arbiter.begin("a", 100.4)
    assert arbiter.tick(100.1) is None, "a period of 0.1 s is none"
    assert [arbiter.tick(now) for now in (100.5, 100.9)] == [Outcome(-0.01)] * 2
    assert arbiter.tick(100.9) is None, "stamps must grow"


@pytest.mark.parametrize(
    ("claims", "verdict", "ended"),
    [
        ([SEEN], None, (True, True, "recognised")),
        ([SEEN, BUMPED], None, (True, False, "bumped")),
        ([BUMPED, DOCKED], None, (True, False, "bumped")),
        ([DOCKED, BUMPED], None, (True, False, "bumped")),
        ([DOCKED, SEEN], NO, (True, False, "failure")),
        ([BUMPED], YES, (True, True, "success")),
        ([DOCKED], None, (True, True, "docked")),
        ([], None, (False, False, "timeout")),
    ],
)
def test_the_highest_authority_is_believed(
    claims: list[Claim], verdict: Judgement | None, ended: tuple[bool, bool, str]
) -> None:
    arbiter = begun(time_limit=1.0)
    for claim in claims:
        arbiter.claim(claim)
    if verdict is not None:
        assert arbiter.judge(verdict, 101.0) == ""
    terminated, truncated, success, reason, reward = end(arbiter, 101.0)
    assert (terminated, success, reason) == ended and truncated != terminated
    assert reward == pytest.approx(-0.01 + (0.0 if truncated else 1.0 if success else -1.0))


def test_what_a_person_gives_in_a_period_is_bounded() -> None:
    arbiter = Arbiter(ArbiterConfig(0.4, reward=RewardConfig(step=0.0, person=0.5)))
    arbiter.announce("a")
    arbiter.begin("a", 100.0)
    for _ in range(10):
        arbiter.judge(Judgement(reward=0.4), 100.2)
    first = arbiter.tick(100.4)
    arbiter.judge(Judgement(reward=-0.4), 100.5)
    second = arbiter.tick(100.8)
    assert first is not None and second is not None
    assert (first.reward, second.reward) == (pytest.approx(0.5), pytest.approx(-0.4)), "of each period by itself"


def test_a_person_may_correct_themselves_until_the_period_is_over() -> None:
    arbiter = begun()
    arbiter.judge(YES, 100.2)
    arbiter.judge(NO, 100.3)
    assert end(arbiter, 100.4)[2:4] == (False, "failure")
    assert arbiter.judge(YES, 100.5) == "the episode has ended already"
    assert arbiter.counts["refused_late"] == 1 and arbiter.counts["ended_by_person"] == 1


def test_rewards_and_stops_add_up_within_the_period() -> None:
    arbiter = begun()
    for judgement in (Judgement(reward=0.2), Judgement(reward=0.2), Judgement(reward=-0.5)):
        assert arbiter.judge(judgement, 100.1) == ""
    arbiter.on_stop("policy", "stopped", "obstacle,blind", 100.0)
    others = (("policy", "limited", "obstacle"), ("policy", "stopped", "e_stop"), ("teleop", "stopped", "obstacle"))
    for verdict in others:
        arbiter.on_stop(*verdict, 100.0)
    arbiter.on_stop("policy", "stopped", "obstacle", 99.9)  # the last command of the episode before
    outcome = arbiter.tick(100.4)
    assert outcome is not None and outcome.reward == pytest.approx(-0.01 - 0.1 - 0.1) and not outcome.ended
    assert arbiter.tick(100.8) == Outcome(-0.01)


@pytest.mark.parametrize(
    ("judgement", "stamp", "task", "kind", "said"),
    [
        (YES, 99.0, "", "stale", "1.0 s before the episode's beginning"),
        (YES, 100.0, "", "stale", "before the episode's beginning"),
        (YES, 103.0, "", "future", "2.5 s ahead"),
        (YES, 0.0, "b", "other_task", "the present one is a"),
        (Judgement("yes"), 0.0, "", "invalid", "valid: success, failure"),
        (Judgement(reward=math.nan), 0.0, "", "invalid", "valid: from -1 to 1"),
        (Judgement(reward=1.5), 0.0, "", "invalid", "valid: from -1 to 1"),
    ],
)
def test_what_does_not_belong_to_the_episode_is_refused_and_counted(
    judgement: Judgement, stamp: float, task: str, kind: str, said: str
) -> None:
    arbiter = begun()
    assert said in arbiter.judge(judgement, 100.5, stamp, task)
    assert arbiter.counts == {f"refused_{kind}": 1}
    assert arbiter.tick(100.5) == Outcome(-0.01)


def test_nothing_said_of_one_episode_reaches_the_next() -> None:
    arbiter = begun()
    assert "no decision yet" not in arbiter.judge(Judgement(reward=0.5), 100.1)
    arbiter.claim(DOCKED)
    arbiter.announce("b")
    assert "no decision yet" in arbiter.judge(YES, 101.0)
    arbiter.claim(SEEN)
    arbiter.begin("b", 102.0)
    arbiter.claim(SEEN, task="a")
    assert arbiter.judge(YES, 102.1, stamp=101.5) != ""
    assert arbiter.tick(102.4) == Outcome(-0.01)
    arbiter.announce("")
    assert arbiter.judge(YES, 103.0) == "no task is worked on" and arbiter.tick(103.0) is None


def test_a_clock_that_jumps_back_ends_what_it_saw_without_an_outcome() -> None:
    arbiter = begun()
    arbiter.claim(DOCKED)
    assert arbiter.tick(3.0) is None and not arbiter.is_open and arbiter.tick(200.0) is None


def test_a_task_has_a_time_limit_of_its_own() -> None:
    arbiter = Arbiter(ArbiterConfig(0.4, 1.0, RewardConfig(step=0.0)))
    arbiter.announce("a", 2.0)
    arbiter.begin("a", 0.0)
    assert arbiter.tick(1.5) == Outcome(0.0)
    assert arbiter.tick(2.0) == Outcome(0.0, truncated=True, reason="timeout")


kinds = st.sampled_from(["yes", "no", "reward", "docked", "bumped", "seen", "tick", "tick", "stop"])


@given(st.lists(kinds, max_size=30))
def test_an_episode_ends_at_most_once_whatever_is_said(said: list[str]) -> None:
    arbiter, now, outcomes = begun(time_limit=3.0), 100.0, []
    for event in said:
        now += 0.3
        if event in ("yes", "no", "reward"):
            arbiter.judge({"yes": YES, "no": NO, "reward": Judgement(reward=0.1)}[event], now)
        elif event == "stop":
            arbiter.on_stop("policy", "stopped", "obstacle", now)
        elif event != "tick":
            arbiter.claim({"docked": DOCKED, "bumped": BUMPED, "seen": SEEN}[event])
        elif (outcome := arbiter.tick(now)) is not None:
            outcomes.append(outcome)
    assert [outcome.ended for outcome in outcomes[:-1]] == [False] * (len(outcomes) - 1)
    assert not outcomes or outcomes[-1].ended == (not arbiter.is_open)
