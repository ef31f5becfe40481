"""The files of a service, from templates: what they hold, where they belong, and the commands that put them there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass as validated

from llmagent_ros.errors import ConfigError
from llmagent_ros.service import quoting
from llmagent_ros.service.installation import Installation

PARTS = ("robot", "compute")  # in the order in which they are started
WHOLE = "all"  # both on this machine, each still a service of its own
OWN = ("robot", "part", "out")  # launch arguments that the unit gives; the folders that it may write to depend on them
_TEMPLATES = Path(__file__).with_name("templates")
_CONFIGURATION = "/etc/llmagent"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_DESCRIPTION = {"robot": "guard and perception", "compute": "policy, learner and knowledge"}
_STARTS = {"robot": 10, "compute": 5}  # in 300 s; then it stays down
_PAUSE = {"robot": 2, "compute": 5}  # s before it is started again


@validated(config=ConfigDict(extra="forbid"), frozen=True)
class ServiceConfig:
    """What differs from one robot and machine to another.

    Attributes:
        robot: robot contract of config/robots, or an absolute path. part: of robot.launch.xml.
        user, group: whose rights the services have. home: absolute; that user's, where their models lie in the cache of
            Hugging Face. out: absolute; folder of the run.
        name: begins the names of units and files. arguments: further launch arguments, name:=value.
        domain: ROS_DOMAIN_ID. discovery: ROS_AUTOMATIC_DISCOVERY_RANGE; OFF would part our own nodes. peers:
            ROS_STATIC_PEERS. rmw: RMW_IMPLEMENTATION.
        logs: absolute; each part gets a folder in it. age: days that files stay there.
        joystick: whether the user's group may read joysticks, and teleop runs with the robot's part.
    """

    robot: str
    part: Literal["all", "robot", "compute"]
    user: str
    group: str
    home: Path
    out: Path
    name: str = "llmagent"
    arguments: tuple[str, ...] = ()
    domain: Annotated[int, Field(ge=0, le=232)] = 0
    discovery: Literal["SUBNET", "LOCALHOST", "SYSTEM_DEFAULT"] = "SUBNET"
    peers: str = ""
    rmw: str = "rmw_fastrtps_cpp"
    logs: Path = Path("/var/log")
    age: Annotated[int, Field(ge=1, le=3650)] = 14
    joystick: bool = False

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"name {value!r}; valid: a to z, 0 to 9 and -, beginning with a letter, at most 40")
        return value

    @field_validator("home", "out", "logs")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError(f"{str(value)!r} is no absolute path")
        return value

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS if self.part == WHOLE else (self.part,)


@dataclass(frozen=True)
class ServiceFile:
    """One file.

    Attributes:
        name: in the folder. text: what it holds. target: where it belongs on the machine.
        after: commands that follow its installation.
    """

    name: str
    text: str
    target: str
    after: tuple[tuple[str, ...], ...] = field(default=())


def service_files(config: ServiceConfig, installed: Installation) -> list[ServiceFile]:
    """The files of the parts in `config`.

    Raises:
        ConfigError: a path or an argument cannot stand in them, or an argument is one that the unit gives itself.
    """
    for argument in config.arguments:
        name = argument.partition(":=")[0]
        if name in OWN:
            raise ConfigError(f"launch argument {argument!r}: the unit gives {', '.join(OWN)} itself; use the options")
    files = [file for part in config.parts for file in _part_files(config, part, installed)]
    if config.joystick and "robot" in config.parts:
        text = _fill("joystick.rules", {"group": config.group})
        reload = ("udevadm", "control", "--reload"), ("udevadm", "trigger", "--subsystem-match=input")
        name = f"70-{config.name}-joystick.rules"
        files.append(ServiceFile(name, text, f"/etc/udev/rules.d/{name}", reload))
    return files


def commands(config: ServiceConfig, folder: Path, files: Sequence[ServiceFile]) -> list[str]:
    """What a person runs to install the files of a folder and to have them started now and at each boot."""
    lines: list[tuple[str, ...]] = [("install", "-d", _CONFIGURATION)]
    for file in files:
        lines += [("install", "-m", "644", str(folder / file.name), file.target), *file.after]
    units = [f"{config.name}-{part}.service" for part in config.parts]
    lines += [("systemctl", "daemon-reload"), ("systemctl", "enable", "--now", *units)]
    return [shlex.join(("sudo", *line)) for line in lines]


def launch_arguments(config: ServiceConfig, part: str) -> dict[str, str]:
    """What robot.launch.xml is given for a part, as the files have it; the later goes before the earlier."""
    extra = dict(word.partition(":=")[::2] for word in _extra(config, part))
    return {**dict(_DEFAULTS), **extra, **_own(config, part)}


# what prints goes to the journal: no live view, and no second copy in files
_DEFAULTS = (("console", "false"), ("log_files", "false"))


def _own(config: ServiceConfig, part: str) -> dict[str, str]:
    return {"robot": config.robot, "part": part, "out": str(config.out)}


def _extra(config: ServiceConfig, part: str) -> list[str]:
    teleop = ["teleop:=true"] if config.joystick and part == "robot" else []
    return [*teleop, *config.arguments]


def _part_files(config: ServiceConfig, part: str, installed: Installation) -> list[ServiceFile]:
    unit = f"{config.name}-{part}"
    environment, tmpfiles = f"{_CONFIGURATION}/{unit}.env", f"/etc/tmpfiles.d/{unit}.conf"
    logs, age = config.logs / unit, f"{config.age}d"
    models = config.home / ".cache" / "huggingface"
    words = {"unit": f"{unit}.service", "unit_name": unit, "user": config.user, "group": config.group}
    service = words | {
        "description": f"{config.name}: {_DESCRIPTION[part]}", "out": quoting.path_line(config.out),
        "environment": environment, "command": _command(config, part, installed),
        "starts": str(_STARTS[part]), "pause": str(_PAUSE[part]), "limits": _fill(f"{part}.limits", {}).strip(),
        "writable": " ".join(map(quoting.path_word, (config.out, logs, f"-{models}"))),  # -: it may be missing
    }  # fmt: skip
    variables = words | {
        "domain": str(config.domain), "discovery": config.discovery, "peers": quoting.variable(config.peers),
        "rmw": quoting.variable(config.rmw), "logs": quoting.variable(str(logs)), "cache": f"/var/cache/{unit}",
        "models": quoting.variable(str(models)),
        "arguments": quoting.variable(quoting.word_list(_extra(config, part))),
        "tmpfiles": tmpfiles, "age": age,
    }  # fmt: skip
    folders = words | {"out_word": quoting.path_word(config.out), "logs_word": quoting.path_word(logs), "age": age}
    made = (("systemd-tmpfiles", "--create", tmpfiles),)
    return [
        ServiceFile(f"{unit}.service", _fill("unit.service", service), f"/etc/systemd/system/{unit}.service"),
        ServiceFile(f"{unit}.env", _fill("unit.env", variables), environment),
        ServiceFile(f"{unit}.tmpfiles.conf", _fill("tmpfiles.conf", folders), tmpfiles, made),
    ]


def _command(config: ServiceConfig, part: str, installed: Installation) -> str:
    """The value of ExecStart; the variable stands unquoted, so that systemd splits it into words."""
    marker = "LLMAGENT_ARGUMENTS"
    defaults = [f"{name}:={value}" for name, value in _DEFAULTS]
    own = [f"{name}:={value}" for name, value in _own(config, part).items()]
    words = installed.command(["launch", "robot", *defaults, marker, *own])
    before, after = words[: words.index(marker)], words[words.index(marker) + 1 :]
    return f"{quoting.command(before)} ${marker} {quoting.arguments(after)}"


def _fill(template: str, values: dict[str, str]) -> str:
    return Template((_TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)
