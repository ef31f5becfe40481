"""Teleop: a person drives with keys or a joystick, presses the e-stop, and says what they think of the robot."""

from __future__ import annotations

import os
import time
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from llmagent_interfaces.msg import Judgement as JudgementMessage
from llmagent_interfaces.msg import Scene
from llmagent_ros.contract import load_contract
from llmagent_ros.errors import ConfigError
from llmagent_ros.nodes import process, qos
from llmagent_ros.nodes.base import Node
from llmagent_ros.nodes.heartbeat import Heartbeat
from llmagent_ros.nodes.parameters import parameters
from llmagent_ros.nodes.teleop_drive import make_drive
from llmagent_ros.nodes.terminal import open_terminal
from llmagent_ros.nodes.wire.commands import command_topics
from llmagent_ros.teleop.joystick import JoystickConfig
from llmagent_ros.teleop.judging import HELP as JUDGE_HELP
from llmagent_ros.teleop.judging import Judge, JudgeConfig
from llmagent_ros.teleop.keyboard import Keyboard, Keystrokes, Repeats
from llmagent_ros.teleop.keys import HELP, KeysConfig
from llmagent_ros.types import Command, Judgement


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class TeleopNodeConfig:
    """Parameters.

    Attributes:
        robot: contract in config/robots, or a path. The limits of a base scale what keys and joystick ask for, the
            action phrases of an arm are what they ask for.
        rate: Hz of commands while somebody drives; must be fast against the guard's teleop_timeout.
        keyboard: auto: where there is a terminal. always: it must be there. never: joystick only.
        teach: keys and joystick choose among the action phrases of a base, one for each scene that perception says, so
            that what is learned from is exactly what was done. An arm is always driven by its phrases.
        keys, joystick, judge: see KeysConfig, JoystickConfig, JudgeConfig.
    """

    robot: str = "sim_diffdrive"
    rate: Annotated[float, Field(ge=5, le=200)] = 20.0
    keyboard: Literal["auto", "always", "never"] = "auto"
    teach: bool = False
    keys: KeysConfig = Field(default_factory=KeysConfig)
    joystick: JoystickConfig = Field(default_factory=JoystickConfig)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)


class TeleopNode(Node):
    """Subscribes joy, with `teach` scene, of an arm its joint states; publishes cmd_vel_teleop (of an arm
    cmd_joint_teleop) while somebody drives, and e_stop (latched) when it changes.

    judgement says that an episode has succeeded or failed, or rewards, when a key or button goes down for it.
    teleop_enable says whether a key or the dead-man is held, for a guard that asks for it; heartbeat, that it lives.

    When key or dead-man are released, one zero (a target of no joint) is sent and then nothing: the robot stands, and
    after its teleop_timeout the guard gives it back to the policy. Keys go before the joystick.
    """

    def __init__(self) -> None:
        super().__init__("teleop", automatically_declare_parameters_from_overrides=True)
        self._config = parameters(self, TeleopNodeConfig)
        contract = load_contract(self._config.robot)
        self.finished: int | None = None
        self._drive = make_drive(self, contract, self._config.keys, self._config.joystick, teach=self._config.teach)
        self._strokes, self._repeats = Keystrokes(), Repeats()
        self._config.judge.check(self._config.joystick)
        self._judge = Judge(self._config.judge)
        self._driving = self._pressed = self._told = False
        self._topics = command_topics(contract)
        self._command_publisher = self.create_publisher(self._topics.kind, self._topics.teleop, qos.COMMAND)
        self._e_stop_publisher = self.create_publisher(Bool, "e_stop", qos.LATEST)
        self._enable_publisher = self.create_publisher(Bool, "teleop_enable", qos.SENSOR)
        self._judgement_publisher = self.create_publisher(JudgementMessage, "judgement", qos.COMMAND)
        self._heartbeat = Heartbeat(self)
        self._reset_client = self.create_client(Trigger, "guard/reset_e_stop")
        self.create_subscription(Joy, "joy", self._on_joy, qos.SENSOR)
        if self._config.teach:
            self.create_subscription(Scene, "scene", self._on_scene, qos.COMMAND)
        self.create_timer(1.0 / self._config.rate, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._keyboard = _keyboard(self._config.keyboard)  # last: from here on `close` gives the terminal back
        if self._keyboard is not None:
            self.get_logger().info(f"{self._drive.help}\n{HELP}\n{JUDGE_HELP}")

    def _on_joy(self, message: Joy) -> None:
        missing = self._drive.missing(message.axes, message.buttons) + self._judge.missing(message.buttons)
        if missing and not self._told:
            self._told = True
            self.get_logger().error(
                f"this joystick has {len(message.axes)} axes and {len(message.buttons)} buttons, "
                f"no {', '.join(missing)}: set them as parameters joystick.*, judge.*"
            )
        if self._drive.on_joy(message.axes, message.buttons, time.monotonic()):
            self._toggle_e_stop()
        for judgement in self._judge.on_joy(message.buttons):
            self._say(judgement)

    def _on_scene(self, message: Scene) -> None:
        """At once, so that the policy, which decides on it as well, hears what the person does instead."""
        self._drive.on_scene()
        if self._driving:
            self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        self._read_keys(now)
        command = self._drive.command(now)
        if command is not None:
            self._enable_publisher.publish(Bool(data=True))  # before the command that it lets pass
            self._publish(command)
        elif self._driving:
            self._publish(self._drive.rest())
            self._enable_publisher.publish(Bool(data=False))
        self._driving = command is not None

    def _read_keys(self, now: float) -> None:
        typed = self._keyboard.read() if self._keyboard is not None else ""
        if typed is None:
            self._close_keyboard()
            self.get_logger().warning("the terminal is gone; only the joystick drives now")
        for character in self._strokes.take(typed or ""):
            held = self._repeats.take(character, now)
            if self._drive.press(character, now) or held:
                continue
            if character == "e":
                self._toggle_e_stop()
            elif character == "r":
                self._reset_e_stop()
            elif character == "q":
                self.finished = 0
            elif (judgement := self._judge.press(character)) is not None:
                self._say(judgement)

    def _say(self, judgement: Judgement) -> None:
        message = JudgementMessage(verdict=judgement.verdict, reward=judgement.reward)
        message.header.stamp = self.get_clock().now().to_msg()
        self._judgement_publisher.publish(message)
        self.get_logger().info(judgement.verdict or f"reward {judgement.reward:+g}")

    def _toggle_e_stop(self) -> None:
        self._pressed = not self._pressed
        self._e_stop_publisher.publish(Bool(data=self._pressed))
        self.get_logger().warning(
            "e-stop pressed" if self._pressed else "e-stop let go; the guard stays stopped until it is reset"
        )

    def _reset_e_stop(self) -> None:
        if not self._reset_client.service_is_ready():
            self.get_logger().error("no guard to reset")
            return
        future = self._reset_client.call_async(Trigger.Request())
        future.add_done_callback(lambda done: self.get_logger().info(f"e-stop: {done.result().message}"))

    def _publish(self, command: Command) -> None:
        self._command_publisher.publish(self._topics.to_message(command, self.get_clock().now().to_msg()))

    def _close_keyboard(self) -> None:
        if self._keyboard is not None:
            self._keyboard.close()
            self._keyboard = None

    def close(self) -> None:
        """Gives the terminal back, and the robot if somebody drives."""
        self._close_keyboard()
        if self._driving:
            self._publish(self._drive.rest())


def _keyboard(wanted: str) -> Keyboard | None:
    """Raises ConfigError when there must be a keyboard and there is none."""
    descriptor = open_terminal() if wanted != "never" else None
    if descriptor is None:
        if wanted == "always":
            raise ConfigError("node teleop: keyboard is 'always', and there is no terminal; valid: auto, never")
        return None
    try:
        return Keyboard(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"node teleop: the terminal cannot be read: {error.strerror}") from error


def main() -> None:
    process.main(TeleopNode)


if __name__ == "__main__":
    main()
