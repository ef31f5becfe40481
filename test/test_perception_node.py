"""Perception as a process: which readings it answers with a scene."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from nav_msgs.msg import Odometry as OdometryMessage
from ros_support import Graph
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import LaserScan as LaserScanMessage

from llmagent_interfaces.msg import Scene, Task
from llmagent_ros.contract import load_contract
from llmagent_ros.nodes import qos
from llmagent_ros.nodes.wire import sensors, stamps
from llmagent_ros.types import CameraImage, LaserScan, Odometry

PERIOD = load_contract("sim_diffdrive").control_period
# Nobody can step the system's clock in a test, so the node is asked which clocks its timers are on.
TIMERS = """
import sys
import rclpy
from llmagent_ros.nodes.perception_node import PerceptionNode

rclpy.init(args=["--ros-args", "-p", "mode:=realtime", "-p", sys.argv[1]])
print("timers", *sorted(timer.clock.clock_type.name for timer in PerceptionNode().timers))
"""


class Robot:
    """The sensors around a perception node, and the scenes that it says."""

    def __init__(self, graph: Graph, **parameters: object) -> None:
        self.process = graph.start("perception", **parameters)
        self.scenes = graph.collect(Scene, "scene")
        self._scan = graph.publisher(LaserScanMessage, "scan", qos.RELIABLE_SENSOR)
        self._odometry = graph.publisher(OdometryMessage, "odom", qos.RELIABLE_SENSOR)
        self._info = graph.publisher(CameraInfo, "camera/camera_info", qos.RELIABLE_SENSOR)
        self._image = graph.publisher(Image, "camera/image_raw", qos.RELIABLE_SENSOR)
        self.task = graph.publisher(Task, "task", qos.LATEST)

    def read(self, stamp: float) -> None:
        """Publishes one set of readings."""
        odometry = Odometry(stamp, 0.0, 0.0, 0.0, 0.0, 0.0)
        self._odometry.publish(sensors.odometry_to_message(odometry, "odom", "base_link"))
        ranges = np.full(360, 3.0, np.float32)
        scan = LaserScan(stamp, -math.pi, math.radians(1), ranges, 0.05, 5.0)
        self._scan.publish(sensors.scan_to_message(scan, "base_scan"))
        image = CameraImage(stamp, np.zeros((8, 12, 3), np.uint8), 5.0, 5.0, 6.0, 4.0)
        message, info = sensors.image_to_messages(image, "camera_link")
        self._info.publish(info)
        self._image.publish(message)

    def said(self, stamp: float) -> bool:
        return any(scene.header.stamp == stamps.to_time(stamp) for scene in self.scenes)


def test_a_world_that_begins_anew_is_said_again(tmp_path: Path) -> None:
    """A simulator that was started again begins at 0, less than a second or long after which the last one died."""
    with Graph(tmp_path) as graph:
        robot = Robot(graph, mode="lockstep")
        robot.task.publish(Task(id="1", instruction="go to the red ball"))
        for stamp in (80.0, 80.4, 0.8, 0.4, 0.8):
            robot.scenes.clear()
            robot.read(stamp)
            graph.until(lambda stamp=stamp: robot.said(stamp), f"no scene of {stamp}")
            assert "unknown" not in robot.scenes[-1].text


@pytest.mark.parametrize(("simulated", "clocks"), [("false", "STEADY_TIME STEADY"), ("true", "ROS_TIME STEADY")])
def test_in_real_time_scenes_are_timed_by_a_clock_that_runs(tmp_path: Path, simulated: str, clocks: str) -> None:
    with Graph(tmp_path) as graph:
        process = graph.run("timers", "-c", TIMERS, f"use_sim_time:={simulated}")
        assert graph.exit_code(process) == 0, process.said
        assert f"timers {clocks}" in process.said


def test_in_real_time_scenes_follow_simulated_time_also_when_it_begins_anew(tmp_path: Path) -> None:
    with Graph(tmp_path) as graph:
        robot = Robot(graph, mode="realtime", use_sim_time=True)
        clock = graph.publisher(Clock, "/clock")
        robot.task.publish(Task(id="1", instruction="go to the red ball"))
        now = 5000.0

        def run() -> bool:
            nonlocal now
            now += PERIOD / 4
            clock.publish(Clock(clock=stamps.to_time(now)))
            robot.read(now)
            said = [scene for scene in robot.scenes if begin < stamps.to_seconds(scene.header.stamp) <= now]
            return len(said) >= 10 and "unknown" not in said[-1].text

        for begin in (5000.0, 3.0):
            now = begin
            robot.scenes.clear()
            graph.until(run, f"no scenes from {begin} s on")
            assert now < 5000.0 or begin == 5000.0, "only because time has caught up"
