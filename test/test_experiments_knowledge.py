"""The knowledge benchmark: held-out words, distinct texts, and a small run of all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from knowledge_support import HashEmbedder

from llmagent_ros.errors import ConfigError, LlmAgentError
from llmagent_ros.experiments.bench import knowledge
from llmagent_ros.experiments.bench.knowledge_texts import Grammar, Source, embedded, queries, words
from llmagent_ros.experiments.bench.results import OURS, Results


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))


def test_what_is_asked_was_never_stored() -> None:
    skills = words()["skills"]
    stored = [plain(text) for each in skills for text in (each["description"], *each["wordings"])]
    asked = [plain(text) for each in skills for text in each["asked"]]
    assert len(skills) == 20 and {len(each["asked"]) for each in skills} == {10}
    assert len({*asked}) == 200 and len({*stored}) == len(stored)
    assert not {*asked} & {*stored}
    # Not even as a part: "please stop driving" would be no other wording than "stop driving".
    assert [(one, other) for one in asked for other in stored if f" {other} " in f" {one} "] == []


def test_the_grammar_makes_distinct_texts_and_other_words_for_each() -> None:
    grammar = Grammar(0)
    assert grammar.size > 1_000_000
    sample = [*range(3000), *range(grammar.size - 3000, grammar.size)]
    descriptions, wordings = [[make(n) for n in sample] for make in (grammar.description, grammar.wording)]
    assert len({*descriptions, *wordings}) == 2 * len(sample)
    assert Grammar(0).description(7) == descriptions[7] != Grammar(1).description(7)
    for wrong in (-1, grammar.size):
        with pytest.raises(ConfigError, match="the grammar has"):
            grammar.description(wrong)
    asked = queries(grammar, 100, 50)
    assert len(asked) == 50 and {*asked} <= {grammar.wording(n) for n in range(100)}
    alike = [entry for name in ("verbs", "objects", "rooms") for entry in words()["grammar"][name]]
    assert all(one != other for one, other in (entry.split("|") for entry in alike))


def test_vectors_are_made_once_and_gone_on_with(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    made: list[int] = []

    def text(number: int) -> str:
        if number == 5000 and len(made) < 6000:
            made.append(number)
            raise KeyboardInterrupt
        made.append(number)
        return f"text {number}"

    source = Source(text, embedder.embed, embedder.dimension)
    path = tmp_path / "deep" / "vectors.f32"
    with pytest.raises(KeyboardInterrupt):
        embedded(path, "key", 6000, source, print)
    with path.open("ab") as file:
        file.write(b"half a row")
    made.clear()
    made += range(6000)  # so that it is not interrupted again
    vectors = embedded(path, "key", 6000, source, print)
    assert made[6000:] == list(range(4096, 6000)), "from the last whole chunk on"
    np.testing.assert_array_equal(vectors, embedder.embed([f"text {n}" for n in range(6000)]))
    made.clear()
    assert embedded(path, "key", 10, source, print).shape == (10, 16) and made == []
    made += range(6000)
    embedded(path, "other", 10, source, print)
    assert json.loads(path.with_suffix(".json").read_text()) == {"key": "other", "done": 10}


def test_exact_search_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "_EXACT", 7)
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    rows = knowledge.nearest(vectors, vectors[:3], 5)
    np.testing.assert_array_equal(rows, np.argsort(-(vectors[:3] @ vectors.T), axis=1)[:, :5])


def test_how_many_are_killed() -> None:
    assert [knowledge.kills(steps) for steps in (100, 200_000, 5_000_000)] == [20, 200, 1000]


@pytest.mark.usefixtures("reserved_domain")
def test_a_small_run_measures_everything_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"QUERIES": 20, "REQUESTS": 8, "PERIOD": 0.0, "CLIENTS": 2, "kills": lambda steps: 3}.items():
        monkeypatch.setattr(knowledge, name, value)
    said: list[str] = []
    told = knowledge.measure(OURS, 0, 300, tmp_path, said.append)
    assert {figure.key for figure in knowledge.FIGURES} <= told.keys()
    assert told["recall_at_5"] == 1.0, "so few are compared with one by one"
    assert told["paraphrase_top1"] > 0.9
    assert (told["crashes"], told["lost"], told["corrupt"]) == (3, 0, 0)
    assert 0 < told["service_p50_ms"] <= told["service_p99_ms"]
    results = Results(tmp_path / "results.json", "knowledge", knowledge.configuration(300))
    results.add(OURS, 0, told)
    figures, peers = knowledge.read(results)
    assert figures["recall_at_5"]["value"] == 1.0 and peers == {}
    with pytest.raises(ConfigError, match="--steps 0"):
        knowledge.measure(OURS, 0, 0, tmp_path, said.append)


@pytest.mark.usefixtures("reserved_domain")
def test_a_node_that_ends_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "skills.sqlite").write_bytes(b"not a database" * 100)
    with (
        knowledge._Node(tmp_path) as node,
        pytest.raises(LlmAgentError, match="the knowledge node ended with exit code 2"),
    ):
        node.asked(["x"] * 20, 0.0)
