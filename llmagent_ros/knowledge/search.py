"""From a query to the nearest skills that pass a filter, best first."""

from __future__ import annotations

import numpy as np

from llmagent_ros.knowledge.index import IdArray, SkillIndex
from llmagent_ros.knowledge.schema import Filter
from llmagent_ros.knowledge.store import SkillStore
from llmagent_ros.types import FloatArray

POOL = 8  # of the nearest skills, all texts are looked at to rank them
_DIGITS = 5  # of a score; what differs less is the same text
_FEW = 4096  # skills whose texts are compared one by one faster than a graph is searched for them


def candidates(k: int) -> int:
    """How many vectors the index is asked for first: k skills may have several texts among the nearest."""
    return max(32, 4 * k)


def nearest(
    index: SkillIndex, store: SkillStore, query: FloatArray, k: int, passing: Filter, max_candidates: int
) -> dict[str, float]:
    """Skill id to the similarity of its nearest text: the k best, and perhaps some more.

    Where few pass the filter, those are compared one by one. Where many do, the index is asked for more and more
    candidates until k of them pass; should `max_candidates` not be enough, because those that pass are far away, all
    that pass are compared.

    Args:
        query: shape (d,), unit norm.
    """
    if passing != Filter() and store.few_pass(passing, _FEW):
        return _best(index, store, query, store.passing(passing), k, passing)
    count = candidates(k)
    while True:
        ids, scores = index.search(query, count)
        best = _owned(store, ids, scores, passing)
        if len(best) >= k or count >= len(index):
            return best
        if count >= max_candidates:
            return _best(index, store, query, store.passing(passing), k, passing)
        count *= 4


def ranked(index: SkillIndex, store: SkillStore, query: FloatArray, best: dict[str, float], k: int) -> list[str]:
    """The k best of these skills, best first: of the max(k, POOL) with the nearest text those with the highest

        score = m + (1 - m)² · μ        m: similarity of the nearest text, μ: mean similarity of all of its texts

    So a text that says the same decides alone, and where none does, what the others say counts as well. Of skills with
    the same score, as when a robot that has changed learned a task anew, the one that was stored last is the better.

    Args:
        best: skill id to the similarity of its nearest text.
    """
    pool = sorted(best, key=lambda skill_id: (-best[skill_id], skill_id))[: max(k, POOL)]
    owners = store.texts_of(pool)
    ids, scores = index.scores(query, np.fromiter(owners, np.int64))
    similar: dict[str, list[float]] = {skill_id: [] for skill_id in pool}
    for vector, similarity in zip(ids.tolist(), scores.tolist(), strict=True):
        similar[owners[vector]].append(similarity)

    def score(skill_id: str) -> float:
        nearest_text = best[skill_id]
        others = similar[skill_id] or [nearest_text]  # deleted at this moment
        return nearest_text + (1.0 - nearest_text) ** 2 * sum(others) / len(others)

    created = store.created(pool)
    return sorted(pool, key=lambda one: (-round(score(one), _DIGITS), -created.get(one, 0.0), one))[:k]


def _best(
    index: SkillIndex, store: SkillStore, query: FloatArray, ids: IdArray, k: int, passing: Filter
) -> dict[str, float]:
    """Of these vectors, compared one by one: the best vectors' skills until there are k."""
    ids, scores = index.scores(query, ids)
    order = np.argsort(-scores, kind="stable")
    best: dict[str, float] = {}
    start, size = 0, candidates(k)
    while start < len(order) and len(best) < k:
        part = order[start : start + size]
        for skill_id, score in _owned(store, ids[part], scores[part], passing).items():
            best.setdefault(skill_id, score)
        start, size = start + size, 8 * size
    return best


def _owned(store: SkillStore, ids: IdArray, scores: FloatArray, passing: Filter) -> dict[str, float]:
    """The skills of these vectors (best first) that pass, each with its best score."""
    owners = store.owners(ids.tolist(), passing)
    best: dict[str, float] = {}
    for vector, score in zip(ids.tolist(), scores.tolist(), strict=True):
        if vector in owners:
            best.setdefault(owners[vector], score)
    return best
