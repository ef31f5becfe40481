"""Who has children and what they go on with; where each came from; and the archive, which loses nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmagent_ros.bundle import load_bundle, save_bundle
from llmagent_ros.errors import ConfigError, ModelError, StoreError, UnknownNameError
from llmagent_ros.learning.evolution.archive import INDEX, Archive, Descriptor
from llmagent_ros.learning.evolution.genes import Genome, Heritage, Space, genes_named
from llmagent_ros.learning.evolution.lineage import Lineage, ancestors
from llmagent_ros.learning.evolution.population import Breeder, BreedingConfig, Member
from llmagent_ros.learning.evolution.search import Search

DEFAULTS = {"learner.beta": 0.02, "learner.gamma": 0.985, "model.rank": 8, "scene.history": 3}
SPACE = Space(genes_named(DEFAULTS), DEFAULTS)
ONLY: dict[str, Any] = {"explore": 0.0, "crossover": 0.0, "search": 0.0, "archive": 0.0}


def breeder(cma: bool = False, size: int = 6, seed: int = 0, most: Heritage = Heritage.RUN, **config: Any) -> Breeder:
    found = Search(SPACE.to_unit(SPACE.default), seed) if cma else None
    return Breeder(SPACE, BreedingConfig(**config), size=size, keep=2, seed=seed, search=found, most=most)


def member(name: str, **changed: Any) -> Member:
    genes = {**SPACE.default, **{key.replace("_", ".", 1): value for key, value in changed.items()}}
    return Member(Genome(genes), Lineage(name, 0, "first"))


KEPT = [member("g000-m01", learner_beta=0.1), member("g000-m03", learner_gamma=0.95)]


def test_the_first_generation_is_the_defaults_and_others() -> None:
    first = breeder().first()
    assert len(first) == 6 and first[0].genome == SPACE.default and len({m.genome for m in first}) == 6
    assert [m.name for m in first] == [f"g000-m0{n}" for n in range(6)]
    assert all(m.lineage.operator == "first" and m.heritage is Heritage.NOTHING for m in first)
    structures = [{m.genome["model.rank"], m.genome["scene.history"]} for m in first]
    assert structures[1] == structures[3] == structures[5] == {8, 3} and len(set(map(str, structures))) > 2
    assert breeder().first() == first and breeder(seed=1).first() != first


def test_the_best_go_on_and_the_others_are_replaced_by_their_children() -> None:
    made = breeder().next(1, KEPT)
    assert [m.lineage.operator for m in made[:2]] == ["elite", "elite"]
    assert [m.genome for m in made[:2]] == [m.genome for m in KEPT] and made[0].heritage is Heritage.RUN
    assert [m.lineage.parents for m in made[:2]] == [("g000-m01",), ("g000-m03",)]
    assert len(made) == 6 and all(m.lineage.operator in ("explore", "crossover") for m in made[2:])
    assert {m.lineage.parents[0] for m in made} <= {"g000-m01", "g000-m03"}
    assert breeder().next(1, KEPT) == made and breeder(seed=1).next(1, KEPT) != made


def test_explore_changes_some_genes_and_says_which() -> None:
    for child in breeder(size=20, **ONLY | {"explore": 1.0}).next(1, KEPT)[2:]:
        parent = next(m for m in KEPT if m.name == child.lineage.parents[0])
        changed = child.genome.difference(parent.genome)
        assert changed and dict(child.lineage.changed) == changed
        assert child.heritage is SPACE.heritage(child.genome, parent.genome)


def test_crossover_merges_where_structures_agree_alone() -> None:
    only = ONLY | {"crossover": 1.0}
    for child in breeder(size=20, **only).next(1, KEPT)[2:]:
        assert child.lineage.operator == "crossover" and set(child.lineage.parents) == {"g000-m01", "g000-m03"}
        assert sum(child.lineage.weights) == pytest.approx(1.0) and child.lineage.weights[0] >= 0.5
        assert child.heritage is Heritage.RUN
        assert all(child.genome[n] in (KEPT[0].genome[n], KEPT[1].genome[n]) for n in child.genome)
    others = [KEPT[0], member("g000-m03", model_rank=16)]
    made = breeder(size=20, **only).next(1, others)[2:]
    assert {m.lineage.operator for m in made} == {"explore"}, "there is no exact mean of them"


def test_search_draws_continuous_genes_and_goes_on_from_the_best() -> None:
    made = breeder(cma=True, size=6, **ONLY | {"search": 1.0}).next(1, KEPT)[2:]
    assert [m.candidate for m in made] == [0, 1, 2, 3] and {m.lineage.parents for m in made} == {("g000-m01",)}
    expected = Search(SPACE.to_unit(SPACE.default), 0)
    for each in made:
        candidate = expected.ask()
        assert candidate is not None
        np.testing.assert_allclose(SPACE.to_unit(each.genome), candidate[1], atol=1e-9)
    many = breeder(cma=True, size=20, **ONLY | {"search": 1.0}).next(1, KEPT)[2:]
    assert {m.lineage.operator for m in many} == {"search", "explore"}, "no more than a batch before it is answered"


def test_of_the_archive_adapter_and_critic_are_inherited_and_no_replay() -> None:
    old = member("g000-m05", learner_beta=0.2)
    made = breeder(size=20, **ONLY | {"archive": 1.0}).next(3, KEPT, [old])[2:]
    assert {m.lineage.parents for m in made} == {("g000-m05",)}
    assert all(m.heritage <= Heritage.BUNDLE for m in made) and Heritage.BUNDLE in {m.heritage for m in made}
    assert {m.lineage.operator for m in breeder(**ONLY | {"archive": 1.0}).next(3, KEPT)[2:]} == {"explore"}


def test_what_is_inherited_can_be_less() -> None:
    assert {m.heritage for m in breeder(most=Heritage.BUNDLE).next(1, KEPT)} <= {Heritage.BUNDLE, Heritage.CRITIC}
    fresh = breeder(inherit=False).next(1, KEPT)
    assert {m.heritage for m in fresh} == {Heritage.NOTHING} and not any(m.lineage.weights for m in fresh)


def test_a_replacement_is_another_child_with_a_name_of_its_own() -> None:
    made = breeder()
    failed = made.next(1, KEPT)[4]
    first, second = made.replacement(failed, 1, KEPT), made.replacement(failed, 2, KEPT)
    assert (first.name, second.name) == ("g001-m04-r1", "g001-m04-r2") and first.genome != second.genome
    assert made.replacement(first, 2, KEPT) == second, "whoever it was that failed in this place"
    assert first.lineage.parents[0] in {"g000-m01", "g000-m03"}
    alone = made.replacement(made.first()[2], 1, [])
    assert alone.lineage.parents == () and alone.genome != SPACE.default


def test_members_go_through_json() -> None:
    for each in breeder(cma=True).next(1, KEPT):
        assert Member.of(json.loads(json.dumps(each.plain()))) == each


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"size": 0}, "population 0: nothing to select from; valid: at least 2"),
        ({"size": 2}, "keep 2 of a population of 2; valid: 1 to 1"),
        (ONLY, "operators: all of them are 0"),
    ],
)
def test_a_population_of_none_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        breeder(**settings)
    with pytest.raises(ConfigError, match="generation 1: no parents"):
        breeder().next(1, [])


# --- lineage ----------------------------------------------------------------------------------------------


def test_ancestors_are_found_once_each() -> None:
    family = [
        Lineage("a", 0, "first"),
        Lineage("b", 0, "first"),
        Lineage("c", 1, "crossover", ("a", "b"), (0.6, 0.4)),
        Lineage("d", 2, "crossover", ("c", "a"), (0.5, 0.5)),
    ]
    assert [each.name for each in ancestors("d", family)] == ["d", "c", "a", "b"]
    with pytest.raises(UnknownNameError, match="unknown member 'e'; valid: a, b, c, d"):
        ancestors("e", family)
    assert Lineage.of(json.loads(json.dumps(family[3].plain()))) == family[3]
    with pytest.raises(ConfigError, match="1 weights of 2 parents"):
        Lineage("x", 0, "crossover", ("a", "b"), (1.0,))
    with pytest.raises(ConfigError, match="lineage"):
        Lineage.of({"name": "x"})


# --- archive ----------------------------------------------------------------------------------------------

STEPS = (Descriptor("steps", (10.0, 20.0)), Descriptor("collisions", (0.1,)))
GENOME, LINEAGE = SPACE.default, Lineage("x", 0, "first")


def bundle(folder: Path, value: float = 1.0, base: str = "base one") -> Path:
    if not folder.exists():
        critic = {"weight": torch.full((2, 2), value)}
        save_bundle(folder, adapter=None, adapter_config={}, critic=critic, meta={"base_digest": base})
    return folder


def put(archive: Archive, folder: Path, name: str, fitness: float, steps: float, collisions: float = 0.0) -> bool:
    behaviour = {"steps": steps, "collisions": collisions, "else": 1.0}
    return archive.add(name, bundle(folder / "bundles" / name, fitness), fitness, behaviour, GENOME, LINEAGE)


def test_each_cell_keeps_its_best(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", "base one", STEPS)
    assert put(archive, tmp_path, "a", 0.5, 5)
    assert put(archive, tmp_path, "b", 0.1, 15), "worse, and another behaviour"
    assert put(archive, tmp_path, "c", 0.3, 5, collisions=0.5)
    assert not put(archive, tmp_path, "d", 0.5, 9), "no better"
    assert put(archive, tmp_path, "e", 0.6, 9.9)
    assert not put(archive, tmp_path, "f", 0.05, 19.9)
    assert [(each.name, each.fitness) for each in archive.elites()] == [("e", 0.6), ("c", 0.3), ("b", 0.1)]
    assert sorted(path.name for path in archive.folder.iterdir()) == [INDEX, "b", "c", "e"]
    again = Archive(tmp_path / "archive", "base one", STEPS)
    assert again.elites() == archive.elites() and len(again) == 3
    for elite in again.elites():
        assert float(load_bundle(elite.folder).critic["weight"][0, 0]) == pytest.approx(elite.fitness)


def test_the_outer_cells_have_no_end(tmp_path: Path) -> None:
    assert [STEPS[0].cell(value) for value in (-1e9, 9.99, 10.0, 19.0, 20.0, 1e9)] == [0, 0, 1, 1, 2, 2]


def test_members_of_another_base_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", "base one", STEPS)
    put(archive, tmp_path, "a", 0.5, 5)
    before = (archive.folder / INDEX).read_bytes()
    other = bundle(tmp_path / "other", base="base two")
    with pytest.raises(ModelError, match=r"of base base two; .* holds members of base one"):
        archive.add("b", other, 0.9, {"steps": 5, "collisions": 0}, GENOME, LINEAGE)
    with pytest.raises(ModelError, match=r"an archive of base base one, not of base two"):
        Archive(tmp_path / "archive", "base two", STEPS)
    with pytest.raises(ConfigError, match="has descriptors"):
        Archive(tmp_path / "archive", "base one", STEPS[:1])
    assert (archive.folder / INDEX).read_bytes() == before and [each.name for each in archive.elites()] == ["a"]


def test_what_is_not_finite_or_damaged_is_refused(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", "base one", STEPS)
    put(archive, tmp_path, "a", 0.5, 5)
    with pytest.raises(ConfigError, match="b has no finite fitness"):
        archive.add("b", tmp_path, float("nan"), {"steps": 5, "collisions": 0}, GENOME, LINEAGE)
    with pytest.raises(ConfigError, match="c has no finite collisions"):
        archive.add("c", tmp_path, 0.9, {"steps": 5}, GENOME, LINEAGE)
    with pytest.raises(ModelError, match="cannot be read as a bundle"):
        archive.add("d", tmp_path / "none", 0.9, {"steps": 5, "collisions": 0}, GENOME, LINEAGE)
    assert [each.name for each in Archive(tmp_path / "archive", "base one", STEPS).elites()] == ["a"]
    shutil.rmtree(archive.folder / "a")
    with pytest.raises(StoreError, match="the archive names it"):
        Archive(tmp_path / "archive", "base one", STEPS)
    (archive.folder / INDEX).write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        Archive(tmp_path / "archive", "base one", STEPS)
    (archive.folder / INDEX).write_text("{}")
    with pytest.raises(StoreError, match="not 'llmagent-archive' version 1"):
        Archive(tmp_path / "archive", "base one", STEPS)


def test_what_an_interrupted_addition_left_is_in_nobodys_way(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", "base one", STEPS)
    put(archive, tmp_path, "a", 0.5, 5)
    shutil.copytree(tmp_path / "bundles" / "a", archive.folder / "b")  # its bundle, and nothing that names it
    again = Archive(tmp_path / "archive", "base one", STEPS)
    assert [each.name for each in again.elites()] == ["a"] and put(again, tmp_path, "b", 0.9, 5)
    assert float(load_bundle(again.folder / "b").critic["weight"][0, 0]) == pytest.approx(0.9)


@pytest.mark.parametrize("edges", [(), (2.0, 1.0), (1.0, 1.0)])
def test_edges_ascend(edges: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="edges must ascend"):
        Descriptor("steps", edges)
