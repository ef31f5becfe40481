"""Genes: every value has one place in the unit interval, a genome stays what it is, and nothing unknown gets in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagent_ros.errors import ConfigError, UnknownNameError
from llmagent_ros.learning.evolution.genes import (
    GENES,
    USUAL,
    Choice,
    Continuous,
    Gene,
    Genome,
    Heritage,
    Integer,
    Space,
    genes_named,
)

CONTINUOUS = [gene for gene in GENES.values() if isinstance(gene, Continuous)]
seeds = st.integers(0, 2**32 - 1)


def space(*names: str) -> Space:
    genes = genes_named(names or ("all",))
    return Space(genes, {gene.name: gene.sample(np.random.default_rng(1)) for gene in genes})


@given(st.sampled_from(CONTINUOUS), st.floats(0, 1))
def test_a_place_in_the_unit_interval_comes_back(gene: Continuous, unit: float) -> None:
    value = gene.from_unit(unit)
    assert gene.low <= value <= gene.high and gene.accepts(value)
    assert gene.to_unit(value) == pytest.approx(unit, abs=1e-9)


@given(st.sampled_from(CONTINUOUS), st.floats(0, 1), st.floats(0, 1))
def test_the_scale_rises(gene: Continuous, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert gene.from_unit(low) <= gene.from_unit(high)


def test_scales_are_what_they_are_called() -> None:
    assert Continuous("a", 1.0, 9.0).from_unit(0.5) == pytest.approx(5.0)
    assert Continuous("a", 1.0, 9.0, "log").from_unit(0.5) == pytest.approx(3.0)
    horizons = [1 / (1 - Continuous("a", 0.9, 0.999, "complement").from_unit(u)) for u in (0.0, 0.5, 1.0)]
    assert horizons == pytest.approx([10, 100, 1000])


@given(seeds)
def test_a_genome_goes_through_json_and_settings_unchanged(seed: int) -> None:
    genome = space().sample(np.random.default_rng(seed))
    again = Genome(json.loads(json.dumps(genome.plain())))
    assert again == genome and hash(again) == hash(genome) and len({again, genome}) == 1
    settings = json.loads(json.dumps(genome.settings()))
    for name in genome:
        group, key = name.split(".")
        value = settings[group][key]
        assert (tuple(value) if isinstance(value, list) else value) == genome[name]


@given(seeds)
def test_the_continuous_genes_of_a_genome_go_to_the_unit_cube_and_back(seed: int) -> None:
    every = space()
    genome = every.sample(np.random.default_rng(seed))
    point = every.to_unit(genome)
    assert point.shape == (len(every.continuous),) and ((point >= 0) & (point <= 1)).all()
    again = every.from_unit(point, genome)
    for name, value in genome.items():
        assert again[name] == (pytest.approx(value) if name in every.continuous else value)


@given(seeds, st.floats(0.01, 1.0))
def test_a_mutant_is_valid_and_another(seed: int, size: float) -> None:
    every = space()
    rng = np.random.default_rng(seed)
    genome = every.sample(rng)
    mutant = every.mutate(genome, rng, size=size, rate=0.0, structure_rate=0.0)
    every.check(mutant)
    assert len(mutant.difference(genome)) == 1, "where no gene was drawn, one changes"
    every.check(every.mutate(genome, rng, size=size, rate=1.0, structure_rate=1.0))


def test_mutations_change_as_many_as_asked_and_by_as_much() -> None:
    one = space("learner.beta", "model.rank")
    start = Genome({"learner.beta": one.from_unit([0.5], one.default)["learner.beta"], "model.rank": 8})
    rng = np.random.default_rng(0)
    mutants = [one.mutate(start, rng, rate=0.9, structure_rate=0.1, size=0.05) for _ in range(2000)]
    steps = np.array([one.to_unit(m)[0] for m in mutants if "learner.beta" in m.difference(start)]) - 0.5
    assert len(steps) == pytest.approx(2000 * (0.9 + 0.1 * 0.9 * 0.9), rel=0.05), "nine tenths, and most of the rest"
    assert steps.std() == pytest.approx(0.05, rel=0.1)
    assert sum("model.rank" in m.difference(start) for m in mutants) == pytest.approx(2000 * 0.11, rel=0.3)


@given(seeds)
def test_a_cross_has_each_gene_of_either_parent(seed: int) -> None:
    every = space()
    rng = np.random.default_rng(seed)
    one, other = every.sample(rng), every.sample(rng)
    child = every.cross(one, other, rng)
    assert all(child[name] in (one[name], other[name]) for name in every.genes)
    same = every.cross(one, one, rng)
    assert same == one


def test_integers_stay_inside_and_move() -> None:
    gene = Integer("scene.history", 0, 3)
    rng = np.random.default_rng(0)
    moved = {(value, gene.mutate(value, rng, size)) for value in range(4) for size in (0.1, 1.0) for _ in range(200)}
    assert all(0 <= new <= 3 and new != old for old, new in moved)
    assert {new for _, new in moved} == {0, 1, 2, 3}
    assert {gene.sample(rng) for _ in range(100)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("changed", "heritage"),
    [
        ({}, Heritage.RUN),
        ({"learner.beta": 0.1}, Heritage.RUN),
        ({"learner.beta": 0.1, "scene.history": 5}, Heritage.BUNDLE),
        ({"scene.history": 5, "model.rank": 4}, Heritage.CRITIC),
        ({"prompt.cue": " so it is now best to", "model.rank": 4}, Heritage.NOTHING),
    ],
)
def test_what_a_child_goes_on_with(changed: dict[str, Any], heritage: Heritage) -> None:
    genes = genes_named(["all"])
    defaults = {"learner.beta": 0.02, "scene.history": 3, "model.rank": 8, "prompt.cue": " so now it is best to"}
    every = Space(genes, {gene.name: defaults.get(gene.name, gene.sample(np.random.default_rng(0))) for gene in genes})
    assert every.heritage(Genome({**every.default, **changed}), every.default) is heritage


def test_an_unknown_gene_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown gene 'learner.bet'; valid: .*learner\.beta.*scene\.history"):
        genes_named(["learner.beta", "learner.bet"])
    one = space("learner.beta")
    with pytest.raises(UnknownNameError, match=r"unknown gene 'model.rank'; valid: learner.beta"):
        one.check(Genome({"learner.beta": 0.1, "model.rank": 4}))
    with pytest.raises(ConfigError, match=r"learner.beta: 7; valid: 0.003 to 0.3, log"):
        one.check(Genome({"learner.beta": 7.0}))
    with pytest.raises(ConfigError, match=r"learner\.beta: has no value"):
        one.check(Genome({}))
    with pytest.raises(ConfigError, match=r"none to vary; valid: learner\.beta"):
        Space([], {})
    with pytest.raises(ConfigError, match=r"no default of learner\.beta"):
        Space(genes_named(["learner.beta"]), {})


def test_a_default_beyond_a_gene_is_a_default_all_the_same() -> None:
    far = Space(genes_named(["learner.beta"]), {"learner.beta": 2.0})
    far.check(far.default)
    assert far.to_unit(far.default) == pytest.approx([1.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Continuous("a", 0.0, 1.0, "log"),
        lambda: Continuous("a", 0.5, 1.0, "complement"),
        lambda: Continuous("a", 2.0, 1.0),
        lambda: Integer("a", 3, 3),
        lambda: Choice("a", (1,)),
    ],
)
def test_genes_that_cannot_vary_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="gene a"):
        make()


def test_every_gene_sets_what_there_is() -> None:
    """Names are those of settings, and a default is among what each may be or beside it."""
    import dataclasses

    from llmagent_ros.learning.rl.config import LearnerConfig
    from llmagent_ros.policy.language_model import LanguageModelConfig

    known = {f"learner.{field.name}" for field in dataclasses.fields(LearnerConfig)}
    known |= {f"model.{field.name}" for field in dataclasses.fields(LanguageModelConfig)}
    assert set(GENES) - known == {"scene.history", "prompt.cue"}
    assert set(USUAL) < set(GENES)


def test_types_of_genes_are_told_apart() -> None:
    gene: Gene = GENES["learner.n_step"]
    assert not gene.accepts(2.0) and not gene.accepts(True) and gene.accepts(2)
    assert not GENES["learner.beta"].accepts(True) and not GENES["learner.beta"].accepts("0.1")


def test_the_docs_name_every_gene_with_what_it_may_be() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "evolution.md").read_text(encoding="utf-8")
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `([a-z_.]+)`[ *]*\| ([^|]*) \|", page, re.MULTILINE)}
    assert set(rows) >= set(GENES)
    for name, gene in GENES.items():
        if not isinstance(gene, Choice):
            assert [float(each) for each in rows[name].split(" to ")] == [gene.low, gene.high], name
