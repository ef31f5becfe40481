"""The command of a written unit, run and stopped as systemd does it: the guard's last word is zero."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from geometry_msgs.msg import TwistStamped
from graph_support import find_node, is_zero, task_file
from launching_support import running
from ros_support import Graph, Process
from service_support import Service, write

from llmagent_interfaces.srv import ResetSimulation
from llmagent_ros.nodes import qos

AS_SYSTEMD_GIVES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG")
OF_THE_TESTS = ("FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_IMPLEMENTATION")  # see conftest.py


def start(service: Service, log: Path) -> Process:
    """The main process of the service, in its working folder and with its environment alone."""
    kept = {name: os.environ[name] for name in (*AS_SYSTEMD_GIVES, *OF_THE_TESTS) if name in os.environ}
    folder = service.settings["WorkingDirectory"]
    environment = kept | service.environment | {"ROS_LOG_DIR": str(log.parent / "ros")}
    return Process(["env", "-C", folder, *service.command], log, environment)


@pytest.mark.xdist_group("graph_service")
@pytest.mark.parametrize("sourced", [False, True], ids=["virtual environment", "with a setup file"])
def test_the_robot_stands_when_its_service_has_been_stopped(
    tmp_path: Path, sourced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sourced:
        (tmp_path / "its ros").mkdir()
        (tmp_path / "its ros" / "setup.bash").write_text("export FROM_SETUP=sourced-it\n")
        monkeypatch.setenv("COLCON_PREFIX_PATH", str(tmp_path / "its ros"))
    out = tmp_path / "out of it"
    out.mkdir()
    with Graph(tmp_path) as graph:
        words = ["use_sim_time:=true", "record:=true", "--domain", graph.domain.number, "--out", out]
        service = write(tmp_path / "files", *words, robot="sim_diffdrive")
        graph.start("sim", mode="realtime", task=task_file(tmp_path, max_steps=1_000_000))
        main = start(service, tmp_path / "service.log")
        try:
            drive_and_stop(graph, service, main)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{main.said}") from error
        finally:
            main.kill_all()
        assert ("sourced-it" in main.said) == sourced
    assert not list((tmp_path / "ros").glob("*")), "the journal has it already"


def drive_and_stop(graph: Graph, service: Service, main: Process) -> None:
    """A person drives; the service is stopped meanwhile, as its unit says."""
    settings = service.settings
    commands: list[TwistStamped] = graph.collect(TwistStamped, "/cmd_vel")
    person = graph.publisher(TwistStamped, "cmd_vel_teleop", qos.COMMAND)

    def driven() -> bool:
        message = TwistStamped()
        message.twist.linear.x = 0.1
        person.publish(message)
        return bool(commands) and not is_zero(commands[-1])

    answer = graph.call(ResetSimulation, "sim/reset", ResetSimulation.Request(use_seed=True, seed=0))
    assert answer.ok, answer.message
    graph.until(driven, "the robot does not drive")
    guard = find_node(main, "guard")
    assert guard is not None
    with main.log.open("a") as log:
        log.write(guard.environ().get("FROM_SETUP", "") + "\n")
    children = main.children
    main.stop(signal.Signals[settings["KillSignal"]])

    def ended() -> bool:
        driven()
        return main.code is not None

    graph.until(ended, "it does not stop", float(settings["TimeoutStopSec"]))
    assert str(main.code) in settings["SuccessExitStatus"].split()
    assert not [child for child in children if running(child.pid)]
    graph.until(lambda: is_zero(commands[-1]), "the last command is not zero")
