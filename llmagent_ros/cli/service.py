"""Write the files with which systemd starts the agent at boot: units, their environment, where their logs go.

    llmagent service write deploy --robot my_robot.yaml --part all         # everything on this machine
    llmagent service write deploy --robot my_robot.yaml --part robot       # on the robot; --part compute on the other
    llmagent service write deploy --robot my_robot.yaml --part compute --out runs/robot record:=false meta:=true
    llmagent service write --robot turtlebot3_burger --part robot --dry-run

The robot's part (guard, perception) and the other (policy, learner, knowledge) are services of their own, also on
one machine: when the learner dies, or is killed for want of memory, the guard goes on, and stops the robot where the
policy is silent.

Nothing is installed: the commands that do are printed. name:=value are arguments of robot.launch.xml for each part.
What was changed by hand in FOLDER is not overwritten without --force. docs/deployment.md tells the rest.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmagent_ros.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from llmagent_ros.service.files import ServiceConfig

HELP = "start at boot: write systemd's files for this installation"
_ACTIONS = ("write",)
_PARTS = ("all", "robot", "compute")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "service", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # no subparsers: they do not let options stand before other arguments
    parser.add_argument("action", metavar="ACTION", help=f"what to do: {', '.join(_ACTIONS)}")
    parser.add_argument("words", nargs="*", metavar="FOLDER name:=value", help="where to, and further launch arguments")
    parser.add_argument("--robot", required=True, metavar="ROBOT", help="contract of config/robots, or a path")
    parser.add_argument("--part", required=True, metavar="PART", help=f"what runs on this machine: {', '.join(_PARTS)}")
    parser.add_argument("--user", metavar="NAME", help="who the services run as (default: you, unless that is root)")
    parser.add_argument("--out", metavar="RUNS", help="folder of the run (default: /var/lib/NAME)")
    parser.add_argument("--name", default="llmagent", help="begins the names of the units (default: %(default)s)")
    network = parser.add_argument_group("network (default: as in this terminal, else as ROS has it)")
    network.add_argument("--domain", metavar="N", help="ROS_DOMAIN_ID, 0 to 232")
    network.add_argument("--discovery", metavar="RANGE", help="ROS_AUTOMATIC_DISCOVERY_RANGE: SUBNET, LOCALHOST, …")
    network.add_argument("--peers", metavar="LIST", help="ROS_STATIC_PEERS: addresses with ; between")
    parser.add_argument("--joystick", action="store_true", help="let the user read joysticks, and start teleop")
    parser.add_argument("--force", action="store_true", help="overwrite what was changed in FOLDER")
    parser.add_argument("-n", "--dry-run", action="store_true", help="print the files and commands, write nothing")
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit code 0."""
    from llmagent_ros.launching import packages
    from llmagent_ros.service.files import commands, service_files
    from llmagent_ros.service.installation import installation
    from llmagent_ros.service.writing import write

    if args.action not in _ACTIONS:
        raise UnknownNameError("action", args.action, _ACTIONS)
    arguments = [word for word in args.words if ":=" in word]
    folders = [word for word in args.words if ":=" not in word]
    if len(folders) > 1 or (not folders and not args.dry_run):
        raise ConfigError(f"FOLDER is {', '.join(folders) or 'missing'}; valid: one folder, or none with --dry-run")
    config = _config(args, arguments)
    _check_launch(config)
    files = service_files(config, installation(packages.executable(packages.OWN, "llmagent")))
    folder = Path(*folders).expanduser().absolute()
    if args.dry_run:
        for file in files:
            print(f"# --- {file.target}\n{file.text}")
    else:
        written = write(folder, files, args.force)
        for file in files:
            print(f"{folder / file.name}: {'written' if file.name in written else 'as it was'}")
    print("\nRead them, then install them and have them started, now and at each boot:\n")
    print("\n".join(f"    {line}" for line in commands(config, folder, files)))
    return 0


def _config(args: argparse.Namespace, arguments: list[str]) -> ServiceConfig:
    """What was asked for, the rest as in this terminal.

    Raises:
        ConfigError: a value is wrong.
    """
    from llmagent_ros import config
    from llmagent_ros.contract.loading import contract_path, load_contract
    from llmagent_ros.service.files import ServiceConfig

    if args.part not in _PARTS:
        raise UnknownNameError("part", args.part, _PARTS)
    load_contract(args.robot)
    path = contract_path(args.robot)
    shipped = path.parent == config.share_dir() / "config" / "robots"
    user, group, home = _user(args.user)
    given: dict[str, Any] = {
        "robot": path.stem if shipped else str(path.absolute()), "part": args.part, "user": user, "group": group,
        "home": Path(home), "out": Path(args.out or f"/var/lib/{args.name}").expanduser().absolute(), "name": args.name,
        "arguments": tuple(arguments), "joystick": args.joystick,
    }  # fmt: skip
    network = {
        "domain": args.domain or os.environ.get("ROS_DOMAIN_ID"),
        "discovery": args.discovery or os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE"),
        "peers": args.peers or os.environ.get("ROS_STATIC_PEERS"), "rmw": os.environ.get("RMW_IMPLEMENTATION"),
    }  # fmt: skip
    return config.build(ServiceConfig, given | {k: v for k, v in network.items() if v}, "service write")


def _user(name: str | None) -> tuple[str, str, str]:
    """Name, first group and home of the account.

    Raises:
        ConfigError: there is none of that name, or nobody has been named and root would be meant.
    """
    import grp
    import pwd

    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    people = [name for name, entry in accounts.items() if entry.pw_uid == os.getuid() or 1000 <= entry.pw_uid < 65000]
    if name is None:
        if os.getuid() == 0:
            raise ConfigError(f"service write: --user is needed, as you are root; valid: {', '.join(sorted(people))}")
        name = pwd.getpwuid(os.getuid()).pw_name
    if name not in accounts:
        raise UnknownNameError("user", name, people)
    return name, grp.getgrgid(accounts[name].pw_gid).gr_name, accounts[name].pw_dir


def _check_launch(config: ServiceConfig) -> None:
    """Refuses what `llmagent launch` would refuse at boot.

    Raises:
        ConfigError: an argument is unknown, malformed, or has a wrong value.
    """
    from llmagent_ros.launching import description, packages
    from llmagent_ros.service.files import launch_arguments

    description.parse_arguments(list(config.arguments))
    for part in config.parts:
        with tempfile.TemporaryDirectory(prefix="llmagent_service_") as scratch:
            given = launch_arguments(config, part)
            description.expand(packages.launch_file("robot"), given, Path(scratch), os.environ)
