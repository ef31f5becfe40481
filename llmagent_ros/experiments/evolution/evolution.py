"""The loop of an evolution: learn for a slice, race, select, breed; on disk after every job.

    OUT/evolve.json      what was asked for
    OUT/state.json       the population that is to be done next, and what came of all before
    OUT/results/GGG/     what each job of the present generation gave
    OUT/members/NAME/    runs of members, as `llmagent train` leaves them: of this generation and of its parents
    OUT/archive/         diverse good ones
    OUT/best/            the best so far: `llmagent train --start OUT/best`, `llmagent eval OUT/best`
    OUT/settings.yaml    its settings: `llmagent train --config OUT/settings.yaml`
    OUT/lineage.json     where each member came from, and how good it was
    OUT/summary.json, failures/, scenes/

Between two generations the state is all there is; within one, the results of its jobs.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import LlmAgentError
from llmagent_ros.experiments.evolution import best as best_files
from llmagent_ros.experiments.evolution.config import CONFIG, EvolutionConfig, check, plain, space_of
from llmagent_ros.experiments.evolution.jobs import run_job
from llmagent_ros.experiments.evolution.journal import FAILURES, Journal, TimeIsUp
from llmagent_ros.experiments.evolution.planning import ARCHIVE, MEMBERS, Planner
from llmagent_ros.experiments.evolution.racing import mix_members, race_members, success
from llmagent_ros.experiments.evolution.state import Ranked, State, read_state, write_state
from llmagent_ros.experiments.evolution.workers import FAILED, Backend, Result, WorkersConfig, open_backend
from llmagent_ros.learning.evolution.archive import Archive, Descriptor
from llmagent_ros.learning.evolution.genes import Heritage
from llmagent_ros.learning.evolution.population import Breeder, Member
from llmagent_ros.learning.evolution.search import Search
from llmagent_ros.learning.evolution.selection import Race, Standing
from llmagent_ros.locking import lock_beside

Say = Callable[[str], None]
_ATTEMPTS = 2  # replacements of a member that failed
_LAST = 999  # the generation whose seeds the last race has
_STEPS = Descriptor("steps", tuple(round(10 * 2 ** (n / 2), 1) for n in range(12)))  # of an episode
_COLLISIONS = Descriptor("collisions", (0.02, 0.1, 0.3))  # share of episodes


class Evolution:
    """See the module. A folder with an evolution is gone on with; the same seed gives the same, however often it was
    interrupted and wherever jobs ran.

    Args:
        workers: how jobs are run. minutes: after which no further job is begun; 0: no limit. say: told of progress.
        backend: in place of the one that `workers` says; the caller's to close.

    Raises:
        ConfigError: something is wrong, or the folder holds another evolution.
    """

    def __init__(
        self,
        config: EvolutionConfig,
        out: Path,
        workers: WorkersConfig | None = None,
        *,
        minutes: float = 0.0,
        say: Say = lambda line: None,
        backend: Backend | None = None,
    ) -> None:
        self.config, self.out, self._say = config, out.resolve(), say
        self.space = space_of(config)
        check(config, self.out)
        self._workers, self._given = workers or WorkersConfig(), backend
        self._minutes = minutes
        self._planner = Planner(config, self.out)
        self._search = self._new_search()
        self._breeder = Breeder(
            self.space,
            config.breeding,
            size=config.population,
            keep=config.kept,
            seed=config.seed,
            search=self._search,
            most=Heritage.BUNDLE if config.is_family else Heritage.RUN,
            start=bool(config.start),
        )

    def run(self) -> dict[str, Any]:
        """To the end, or on from where it was interrupted, until a limit is met; returns the summary as written.

        Raises:
            LlmAgentError: all members of a generation failed. StoreError: the folder is in use, or damaged.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        lock = lock_beside(self.out / "evolution")
        backend = self._given
        try:
            state = read_state(self.out)
            backend = backend or open_backend(self._workers, run_job)
            write_atomic(self.out / CONFIG, (json.dumps(plain(self.config), indent=1) + "\n").encode())
            until = time.monotonic() + 60 * self._minutes if self._minutes else float("inf")
            self._journal = Journal(self.out, backend, lambda: time.monotonic() < until, self._on_result)
            self.state = state or State(population=self._breeder.first())
            self._resume_search()
            return self._finish(self._generations())
        finally:
            if self._given is None and backend is not None:
                backend.close()
            lock.release()

    # --- generations --------------------------------------------------------------------------------------

    def _generations(self) -> str:
        """All that are allowed; returns which limit ended them."""
        share = self.config.population * self.config.slice
        try:
            while self.state.generation < self.config.generations:
                spent = self.state.env_steps + self.state.evaluation_steps
                if self.config.steps and spent + share > self.config.steps:
                    self._last_race()
                    return "steps"
                self._generation()
            self._last_race()
        except TimeIsUp:
            return "minutes"
        return "generations"

    def _generation(self) -> None:
        before, number = self.state, self.state.generation
        began = time.monotonic()
        task = self._planner.tasks[self._planner.task(number)]
        self._say(f"generation {number + 1} of {self.config.generations}, {len(before.population)} members: {task}")
        members, results, failures = self._train(before)
        env_steps = sum(each["env_steps"] for each in results.values())
        race, results, further = race_members(self._journal, self._planner, number, results, self.config.kept)
        self._answer_search(before.population, members, race)
        ranked = [Ranked(members[each.name], each, success(results[each.name])) for each in race.standings()]
        kept = [each for each in ranked if each.standing.selected]
        archive = self._archive(number, ranked, results)
        parents = [Member(elite.genome, elite.lineage) for elite in archive.elites()]
        episodes, steps = self._journal.take_spent()
        self.state = State(
            generation=number + 1,
            population=self._breeder.next(number + 1, [each.member for each in kept], parents),
            kept=kept,
            answers=self._search.state() if self._search is not None else [],
            env_steps=before.env_steps + env_steps,
            episodes=before.episodes + episodes,
            evaluation_steps=before.evaluation_steps + steps,
            failures=[*before.failures, *failures, *further],
            history=[*before.history, *({"generation": number, **each.plain()} for each in ranked)],
            wall_s=before.wall_s + time.monotonic() - began,
        )
        self._write(kept[0])
        self._tidy(number)
        self._say(
            f"generation {number + 1} done: best {_told(kept[0].standing)}, {self.state.env_steps:,} env steps, "
            f"{len(archive)} in the archive, about {self._minutes_left():.0f} min left"
        )

    def _train(self, state: State) -> tuple[dict[str, Member], dict[str, Result], list[dict[str, str]]]:
        """Members that came through and what they gave, those that fail replaced; and who failed, and why.

        Raises:
            LlmAgentError: nobody came through; the same command tries again.
        """
        members, results, failures = dict[str, Member](), dict[str, Result](), list[dict[str, str]]()
        waiting, kept = list(state.population), [each.member for each in state.kept]
        for attempt in range(1, _ATTEMPTS + 2):
            done = self._journal.do(state.generation, [self._planner.train(member) for member in waiting])
            given = list(zip(waiting, done.values(), strict=True))
            failed = [member for member, result in given if FAILED in result]
            failures += [{"member": m.name, "why": r[FAILED]} for m, r in given if FAILED in r]
            members |= {member.name: member for member, result in given if FAILED not in result}
            results |= {member.name: result for member, result in given if FAILED not in result}
            if not failed or attempt > _ATTEMPTS:
                break
            waiting = [self._breeder.replacement(member, attempt, kept) for member in failed]
            pairs = zip(failed, waiting, strict=True)
            self._say("  replaced: " + ", ".join(f"{old.name} by {new.name}" for old, new in pairs))
        if not members:
            self._journal.forget_failures(state.generation)
            raise LlmAgentError(
                f"generation {state.generation + 1}: all members failed, {failures[0]['member']} first: "
                f"{failures[0]['why']}; more in {self.out / FAILURES}"
            )
        return members, results, failures

    def _last_race(self) -> None:
        """Those that were kept, and the best mixture of them, on episodes that none of them was selected by."""
        state = self.state
        if not state.kept or state.final:
            return
        number, task = state.generation, self._planner.task(state.generation - 1)
        members = {each.member.name: each.member for each in state.kept}
        first = state.kept[0].member
        alike = [m for m in members.values() if self.space.heritage(m.genome, first.genome) is Heritage.RUN]
        if self.config.mixture and len(alike) > 1:
            self._say(f"mixing {', '.join(member.name for member in alike)}")
            mixture = mix_members(self._journal, self._planner, number, alike, task)
            members |= {mixture.name: mixture} if mixture is not None else {}
        self._say(f"last race of {', '.join(members)}")
        race, results, failures = race_members(
            self._journal, self._planner, _LAST, {name: {} for name in members}, 1, task
        )
        state.final = [Ranked(members[s.name], s, success(results[s.name])) for s in race.standings()]
        state.history += [{"generation": _LAST, **each.plain()} for each in state.final]
        episodes, steps = self._journal.take_spent()
        state.episodes, state.evaluation_steps = state.episodes + episodes, state.evaluation_steps + steps
        state.failures += failures
        self._write(state.final[0])
        self._journal.clear(number)
        self._journal.clear(_LAST)

    # --- what goes along ----------------------------------------------------------------------------------

    def _new_search(self) -> Search | None:
        if not self.space.continuous or not self.config.breeding.search:
            return None
        return Search(self.space.to_unit(self.space.default), self.config.seed)

    def _resume_search(self) -> None:
        """As it was when the state was written: what it was told, and what the population asked it for."""
        if self._search is None or not self.state.generation:
            return
        self._search.replay(self.state.answers)
        for member in self.state.population:
            if member.candidate is not None:
                self._search.ask()

    def _answer_search(self, population: Sequence[Member], members: dict[str, Member], race: Race) -> None:
        """Tells by how much a candidate did better than the member that it came from, which went on as it was.

        On the same repetitions: what a slice is worth differs between generations.
        """
        went_on = {m.lineage.parents[0]: m.name for m in members.values() if m.lineage.operator == "elite"}
        for member in population:
            if member.candidate is None or self._search is None:
                continue
            own = race.values(member.name) if member.name in members else ()
            reference = went_on.get(member.lineage.parents[0])
            theirs = race.values(reference) if reference is not None else ()
            count = min(len(own), len(theirs))
            gain = float(np.mean(np.subtract(own[:count], theirs[:count]))) if count else None
            self._search.tell(member.candidate, gain)

    def _archive(self, number: int, ranked: Sequence[Ranked], results: dict[str, Result]) -> Archive:
        """The archive, with those of a generation that belong into it."""
        tasks = len(self._planner.tasks)
        descriptors = [_STEPS, _COLLISIONS]
        if tasks > 1:
            descriptors.append(Descriptor("task", tuple(n + 0.5 for n in range(tasks - 1))))
        digest = next(result["base_digest"] for result in results.values())
        archive = Archive(self.out / ARCHIVE, digest, descriptors)
        for each in ranked:
            name, result = each.member.name, results[each.member.name]
            if not np.isfinite(each.standing.mean):
                continue  # it failed in the race
            behaviour = {
                "steps": float(np.mean(result["steps"])),
                "collisions": float(np.mean([end == "collision" for end in result["ends"]])),
                "task": float(self._planner.task(number)),
            }
            bundle = best_files.newest_bundle(self._planner.folder(name))
            archive.add(name, bundle, each.standing.mean, behaviour, each.member.genome, each.member.lineage)
        return archive

    def _write(self, best: Ranked) -> None:
        best_files.save(self.out, self._planner.folder(best.member.name), best.member, self.config)
        write_state(self.out, self.state)

    def _tidy(self, number: int) -> None:
        """Drops what nothing goes on with: other members' runs, and results that the state holds."""
        needed = {each.member.name for each in self.state.kept}
        for folder in (self.out / MEMBERS).iterdir():
            if folder.name not in needed:
                shutil.rmtree(folder, ignore_errors=True)
        self._journal.clear(number)

    # --- words --------------------------------------------------------------------------------------------

    def _on_result(self, key: str, result: Result, known: bool) -> None:
        if FAILED in result:
            self._say(f"  {key}: failed: {result[FAILED]}")
        elif result["fitness"]:
            told = f"{np.mean(result['fitness']):.3g} in {len(result['fitness'])} episodes"
            self._say(f"  {key}: {told}{', known' if known else ''}")

    def _minutes_left(self) -> float:
        done = self.state.generation
        return self.state.wall_s / done * (self.config.generations - done) / 60

    def _finish(self, ended: str) -> dict[str, Any]:
        told = [each.plain() for each in self.state.final or self.state.kept]
        summary = {
            "ended": ended,
            "generations": self.state.generation,
            "env_steps": self.state.env_steps,
            "evaluation_episodes": self.state.episodes,
            "evaluation_steps": self.state.evaluation_steps,
            "wall_s": self.state.wall_s,
            "failures": self.state.failures,
            "best": told[0] if told else None,
            "kept": told,
        }
        write_atomic(self.out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
        write_atomic(self.out / "lineage.json", (json.dumps(self.state.history, indent=1) + "\n").encode())
        return summary


def _told(standing: Standing) -> str:
    return f"{standing.name} with {standing.mean:.3g} ± {1.96 * standing.error:.2g}"
