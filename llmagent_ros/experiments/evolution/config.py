"""What an evolution was asked for; OUT/evolve.json holds it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from llmagent_ros import config as configuration
from llmagent_ros.errors import ConfigError
from llmagent_ros.experiments import families, runs
from llmagent_ros.experiments.environments import DEFAULT_ROBOT, EnvironmentSpec
from llmagent_ros.experiments.evolution.scenes import history_of
from llmagent_ros.learning.evolution.genes import GENES, Space, genes_named
from llmagent_ros.learning.evolution.population import BreedingConfig
from llmagent_ros.learning.evolution.selection import RaceConfig
from llmagent_ros.policy.prompt import PromptFormat

CONFIG = "evolve.json"
_OURS = ("environment", "steps", "seed", "robot", "start", "scene", "threads")  # what members cannot be told


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class EvolutionConfig:
    """One evolution.

    Attributes:
        environment: see `EnvironmentSpec`; or the name of a family of tasks: each generation then learns the next of
            its tasks to learn from, and what evolves is what a new task is begun with.
        robot: contract. population, generations: how many. keep: of a population; 0: a quarter of it.
        slice: environment steps of each member in each generation. steps: of all members together at most, evaluations
            included: a generation whose learning would go beyond is not begun; 0: no limit.
        seed: of everything that is drawn. start: a bundle that the first generation begins with, empty for none.
        fitness: by what members are compared, of the held-out episodes of a generation: their returns, or successes.
        genes: that vary, see `learning.evolution.genes`. settings: of all members, as for a run; genes override them.
        mixture: rounds of the search for the best mixture of those that were kept, at the end; 0: none.
        breeding, race: see there.
    """

    environment: str
    robot: str = DEFAULT_ROBOT
    population: Annotated[int, Field(ge=2, le=1000)] = 8
    generations: Annotated[int, Field(ge=1, le=999)] = 10
    keep: Annotated[int, Field(ge=0)] = 0
    slice: Annotated[int, Field(gt=0)] = 2000
    steps: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    start: str = ""
    fitness: Literal["return", "success"] = "return"
    genes: tuple[str, ...] = ("usual",)
    settings: dict[str, Any] = Field(default_factory=dict)
    mixture: Annotated[int, Field(ge=0, le=100)] = 3
    breeding: BreedingConfig = Field(default_factory=BreedingConfig)
    race: RaceConfig = Field(default_factory=RaceConfig)

    def __post_init__(self) -> None:
        wrong = sorted(set(self.settings) & set(_OURS))
        if wrong:
            raise ConfigError(f"settings: {', '.join(wrong)}: not for members; valid: learner, model, prompt …")
        if self.keep >= self.population:
            raise ConfigError(f"keep {self.keep} of a population of {self.population}; valid: fewer, or 0")
        if self.steps and self.steps < self.population * self.slice:
            least = self.population * self.slice
            raise ConfigError(f"steps {self.steps}: less than one generation's {least}; valid: 0, or from there on")

    @property
    def kept(self) -> int:
        return self.keep or max(1, self.population // 4)

    @property
    def is_family(self) -> bool:
        """Whether it is learned on a family's tasks in turn."""
        path = Path(self.environment)
        if path.suffix in {".yaml", ".yml"}:
            return path.is_file() and "train" in configuration.read_yaml(path)
        return self.environment in families.shipped_families()

    def tasks(self) -> list[str]:
        """The environments of the generations, in turn."""
        if not self.is_family:
            return [self.environment]
        family = families.load_family(self.environment)
        return [f"{self.environment}{families.SEPARATOR}{member}" for member in family.members("train")]

    def spec(self, generation: int) -> EnvironmentSpec:
        """Of the environment of a generation."""
        tasks = self.tasks()
        return EnvironmentSpec(tasks[generation % len(tasks)], self.robot)


def space_of(config: EvolutionConfig) -> Space:
    """The genes that vary, with what each is where nothing was changed; settings count as unchanged.

    Raises:
        UnknownNameError: there is no such gene. ConfigError: environment or settings are wrong.
    """
    genes = genes_named(config.genes)
    spec = config.spec(0)
    train = runs.make_config(spec.name, {**config.settings, "robot": spec.robot}, "llmagent evolve")
    form = train.prompt or PromptFormat()
    known: dict[str, Any] = {f"learner.{key}": value for key, value in dataclasses.asdict(train.learner).items()}
    known |= {f"model.{key}": value for key, value in dataclasses.asdict(train.model).items()}
    known |= {"prompt.cue": form.cue, "scene.history": history_of(spec)}
    return Space(genes, {gene.name: known[gene.name] for gene in genes})


def read_config(out: Path) -> EvolutionConfig | None:
    """What the evolution of a folder was asked for; None where there is none.

    Raises:
        ConfigError: the file is damaged.
    """
    path = out / CONFIG
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    return configuration.build(EvolutionConfig, values, str(path))


def check(config: EvolutionConfig, out: Path) -> None:
    """A folder of the same evolution is gone on with, for more generations or steps if so asked.

    Raises:
        ConfigError: the folder holds another one; what differs is named.
    """
    known = read_config(out)
    if known is None:
        return
    before = dataclasses.replace(known, generations=config.generations, steps=config.steps)
    other = configuration.differences(plain(before), plain(config))
    if other:
        raise ConfigError(f"{out}: holds an evolution with other settings: {', '.join(other)}; choose another --out")


def plain(config: EvolutionConfig) -> dict[str, Any]:
    """As JSON says it."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def merged(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, those of `others` where both have them."""
    result = dict(settings)
    for key, value in others.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


assert all(name.partition(".")[0] in {"learner", "model", "scene", "prompt"} for name in GENES)
