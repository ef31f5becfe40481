"""A new kind of task whose words are like nothing begins with a skill that is like what is seen."""

from __future__ import annotations

from pathlib import Path

from graph_support import LONG, Agent, compose_world
from ros_support import DEADLINE, Graph

from llmagent_interfaces.msg import Skill
from llmagent_interfaces.srv import RetrieveSkills

STEPS = 4


def test_the_first_scene_is_asked_for_where_the_words_find_nothing(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(request: RetrieveSkills.Request, response: RetrieveSkills.Response) -> RetrieveSkills.Response:
        """Plays the knowledge node, which knows a scene and no instruction."""
        asked.append(request.text)
        skill = Skill(id="5f0c", description="drive", contract="sim_diffdrive", attempts=10, successes=9)
        skill.similarity = 0.8 if ". " in request.text else 0.1
        skill.path, skill.digest = str(tmp_path / "nowhere"), "0" * 64
        response.ok, response.skills = True, [skill]
        return response

    with Graph(tmp_path) as graph:
        graph.node.create_service(RetrieveSkills, "retrieve_skills", answer)
        robot = compose_world(graph, tmp_path, max_steps=STEPS)
        graph.start("policy", robot=robot, out=tmp_path / "out", use_sim_time=True, retrieve_timeout=DEADLINE)
        agent = Agent(graph)
        goal = agent.send(agent.reset(seed=1))
        _, result = goal.result()
        assert result.steps == STEPS
        agent.episode(goal.task_id, STEPS)  # each scene once, each with its decision
        graph.until(lambda: len([t for t in agent.tasks if t.id == goal.task_id]) == 2, "it is announced once", LONG)
        first, again = (task for task in agent.tasks if task.id == goal.task_id)
        assert (first.beginning.kind, again.beginning.kind) == ("initial", "near")
        assert list(again.beginning.ids) == ["5f0c"] and first.instruction == again.instruction
        assert asked[0] == "go to the object" and asked[1].startswith("go to the object. object ")
        before = len(asked)
        other = agent.send(agent.reset(seed=2))
        other.result()
        assert len(asked) == before + 1, "a kind of task that is known is not asked for by its scene"
