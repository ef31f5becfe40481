"""Learning one task after another: each begins with what language finds, and is kept as a skill that it finds again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmagent_ros.bundle import Bundle, latest_bundle, save_bundle
from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ModelError
from llmagent_ros.experiments import runs
from llmagent_ros.experiments.environments import EnvironmentSpec, make_environment
from llmagent_ros.experiments.evaluation import Policy
from llmagent_ros.experiments.training import BUNDLES, REPLAY, TrainConfig
from llmagent_ros.knowledge.audit import Cause
from llmagent_ros.knowledge.knowledge import Knowledge
from llmagent_ros.knowledge.skill import Found, Skill
from llmagent_ros.knowledge.start import Start, StartConfig, choose_start
from llmagent_ros.learning.gate import Gate, Record, Ruling
from llmagent_ros.learning.lessons import distil_lessons
from llmagent_ros.learning.merging import merge_adapters, merge_critics
from llmagent_ros.learning.rl.critic import build_critic
from llmagent_ros.learning.rl.replay import Replay
from llmagent_ros.policy.deployment import read_deployment
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.policy.text_policy import TextPolicy
from llmagent_ros.recording.episodes import EPISODES, read_episodes

START, BEGUN, SKILL = "start", "begun.json", "skill_id"  # in a run's folder
_CANDIDATES = 8  # skills that are looked at for a beginning
_LESSONS_FROM = 2000  # transitions at most
_RECENT = 30  # episodes at the end of a run that say how good its skill is, if the gate's patience is not longer


@dataclasses.dataclass(frozen=True)
class Told:
    """What is asked for in an environment. wording: the instruction, whichever object it is about. contract: whose."""

    wording: str
    contract: str
    phrases: tuple[str, ...]


def told(spec: EnvironmentSpec) -> Told:
    """What the first episode of an environment asks for."""
    env = make_environment(spec)
    try:
        env.reset(seed=0)
        return Told(env.wording, env.contract_name, env.phrases)
    finally:
        env.close()


class ContinualLearner:
    """Runs that begin with skills of a store, and become skills of it.

    Args:
        knowledge: stays the caller's to close. gate: decides whether a run may replace the skill that it went on with.
    """

    def __init__(self, knowledge: Knowledge, config: StartConfig | None = None, gate: Gate | None = None) -> None:
        self.knowledge, self.config, self.gate = knowledge, config or StartConfig(), gate or Gate()

    def begin(self, config: TrainConfig, out: Path) -> tuple[TrainConfig, Start]:
        """The configuration of a run, with the bundle that it begins with, and why that one.

        A run that has begun goes on with what it began with.
        """
        if (out / runs.CONFIG).exists():
            known = json.loads((out / BEGUN).read_text(encoding="utf-8"))
            skills = [Found(self.knowledge.get(skill_id), similarity) for skill_id, similarity in known["skills"]]
            start = Start(known["kind"], tuple(skills), tuple(known["weights"]), known["why"])
            return dataclasses.replace(config, start=runs.read_config(out).start), start
        asked = told(config.spec)
        start = choose_start(self.knowledge.retrieve(asked.wording, _CANDIDATES), asked.contract, self.config)
        begun = {
            "kind": start.kind,
            "skills": [(found.skill.id, found.similarity) for found in start.skills],
            "weights": start.weights,
            "why": start.why,
        }
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / BEGUN, (json.dumps(begun, indent=2) + "\n").encode())
        return dataclasses.replace(config, start=self._bundle_of(start, out)), start

    def keep(self, config: TrainConfig, out: Path, start: Start) -> tuple[Skill, str]:
        """Stores what a finished run learned, the first time; after that it answers the skill as it is.

        Returns:
            The skill as it is in the store now, and in words what was decided. One that the gate does not let pass
            changes nothing; a run that is made longer is judged again.

        Raises:
            ModelError: the run has no bundle. UnknownNameError: its skill was deleted.
        """
        if (out / SKILL).exists():
            return self.knowledge.get((out / SKILL).read_text(encoding="utf-8")), "kept before"
        bundle = latest_bundle(out / BUNDLES)
        if bundle is None:
            raise ModelError(f"{out}: nothing was learned yet (no bundle in {BUNDLES})")
        asked = told(config.spec)
        attempts, successes = self._outcomes(out)
        ruling = Ruling("accept", start.why)
        if start.kind == "same" and start.skills[0].skill.path is not None:
            ruling = self._rule(config, out, start.skills[0].skill, bundle, asked.phrases)
            if ruling.says != "accept":
                return start.skills[0].skill, f"not replaced: {ruling.why}"
        with Replay(out / REPLAY, asked.phrases, read_only=True) as replay:
            lessons = distil_lessons(replay.recent(_LESSONS_FROM))
        skill = Skill(
            description=asked.wording,
            lessons=tuple(lessons),
            contract=asked.contract,
            attempts=attempts,
            successes=successes,
            parents=tuple(found.skill.id for found in start.skills),
            id=start.skills[0].skill.id if start.kind == "same" else "",
        )
        cause = Cause(ruling.why, "training run", {"run": out.name, **ruling.data})
        stored = self.knowledge.store(skill, bundle, cause=cause)
        write_atomic(out / SKILL, stored.id.encode())
        return stored, ruling.why

    def _rule(self, config: TrainConfig, out: Path, skill: Skill, bundle: Path, phrases: tuple[str, ...]) -> Ruling:
        """Whether the run's bundle may replace the skill's: on the run's last scenes, then by outcomes."""
        with Replay(out / REPLAY, phrases, read_only=True) as replay:
            scenes = list(dict.fromkeys(t.scene for t in replay.recent(self.gate.config.scenes)))
        policy, said = TextPolicy(LanguageModel(config.model, phrases, config.prompt)), []
        for path in (skill.path, bundle):
            assert path is not None
            deployment = read_deployment(path, policy.model, build_critic)
            policy.swap(deployment.adapter, deployment.values, beta=deployment.beta, name=deployment.name)
            said.append([each.numpy() for each in policy.distribution(scenes)])
        on_scenes = self.gate.on_scenes(said[0][0], said[1][0], said[0][1], said[1][1])
        if on_scenes.says == "reject":
            return on_scenes
        successes, attempts = skill.successes, skill.attempts
        recent, succeeded = self._outcomes(out)
        on_outcomes = self.gate.on_outcomes(Record(successes, attempts), Record(succeeded, recent))
        return Ruling(on_outcomes.says, f"{on_scenes.why}; {on_outcomes.why}", on_scenes.data | on_outcomes.data)

    def _outcomes(self, out: Path) -> tuple[int, int]:
        """Of a run's last episodes; with fewer than its patience a gate that is not sure would wait for ever."""
        return recent_outcomes(out, max(_RECENT, self.gate.config.patience))

    def policy(self, spec: EnvironmentSpec, model: LanguageModel) -> tuple[Policy, Found | None]:
        """How a robot would act now on what it is told: by the nearest skill of its contract, or as the base does."""
        asked = told(spec)
        found = self.knowledge.retrieve(asked.wording, 1, asked.contract)
        policy = TextPolicy(model)
        if not found or found[0].similarity < self.config.near or found[0].skill.path is None:
            return _log_probabilities(policy), None
        deployment = read_deployment(found[0].skill.path, model, build_critic)
        policy.swap(deployment.adapter, deployment.values, beta=deployment.beta, name=deployment.name)
        return _log_probabilities(policy), found[0]

    def _bundle_of(self, start: Start, out: Path) -> str:
        """Folder of the bundle to begin with; a merged one is made in the run's own folder."""
        if not start.skills:
            return ""
        if len(start.skills) == 1:
            return str(start.skills[0].skill.path)
        bundles = [self.knowledge.bundle(found.skill) for found in start.skills]
        folder = out / START
        if not folder.exists():
            merge_bundles(folder, bundles, start.weights)
        return str(folder)


def recent_outcomes(out: Path, most: int) -> tuple[int, int]:
    """Attempts and successes: the last episodes of a run, at most so many."""
    last = read_episodes(out / EPISODES)[-most:]
    return len(last), sum(episode.success for episode in last)


def merge_bundles(
    folder: Path, bundles: Sequence[Bundle], weights: Sequence[float], meta: Mapping[str, Any] | None = None
) -> str:
    """Writes the bundle of the merged adapter, and of the merged critic where all have the same phrases.

    Args:
        meta: added to that of the first one.

    Returns:
        Its digest.

    Raises:
        ModelError: they have no exact merge.
    """
    first = bundles[0]
    same = all(bundle.meta.get("phrases") == first.meta.get("phrases") for bundle in bundles)
    critics = [bundle.critic for bundle in bundles]
    return save_bundle(
        folder,
        adapter=merge_adapters([bundle.adapter or {} for bundle in bundles], weights),
        adapter_config=first.adapter_config,
        critic=merge_critics(critics, weights) if same and all(critics) else {},
        meta={**first.meta, **(meta or {}), "merged": [[b.digest, w] for b, w in zip(bundles, weights, strict=True)]},
    )


def _log_probabilities(policy: TextPolicy) -> Policy:
    return lambda scenes: policy.distribution(scenes)[0].numpy()
