"""Look at recorded episodes, check them, say their scenes again, take things out, learn from them.

    llmagent launch sim record:=true out:=runs/s0       # records; every episode is a bag in runs/s0/bags
    llmagent record list runs/s0
    llmagent record verify runs/s0                      # exit code 1 when something is wrong
    llmagent record scenes runs/s0/bags/BAG --check     # says each scene again and compares; exit code 1 if unlike
    llmagent record redact runs/s0/bags/BAG --topics /scan --texts "red ball" --out clean/BAG
    llmagent record import runs/s0/bags --into runs/s1/replay.sqlite
    llmagent record import drive.mcap --robot my_robot.yaml --task "go to the red ball" --into runs/s1/replay.sqlite

BAGS is a bag, a folder of bags, or a run. docs/recording.md says what is in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmagent_ros.cli._gaps import warn_of
from llmagent_ros.cli._table import table
from llmagent_ros.console.text import printable
from llmagent_ros.errors import ConfigError

if TYPE_CHECKING:
    from llmagent_ros.experiments.recordings.scenes import ReplayedScene
    from llmagent_ros.recording.bags.inspection import BagEntry
    from llmagent_ros.types import Transition

HELP = "recorded episodes: list, verify, scenes, redact, import"
_WIDTH = 40  # characters of a task in the table


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "record", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=f"{text}.", parents=[common])

    add("list", "the episodes in bags, oldest first").add_argument("bags", type=Path, metavar="BAGS")
    add("verify", "check bags; exit code 1 when something is wrong").add_argument("bags", type=Path, metavar="BAGS")
    _add_scenes(add("scenes", "say the scenes of a bag again from what its sensors said"))
    _add_redact(add("redact", "take topics and texts out of a bag"))
    _add_import(add("import", "put what bags or a data set hold into a replay"))
    return parser


def _add_scenes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG")
    parser.add_argument("--check", action="store_true", help="compare with the recorded ones; exit code 1 if unlike")
    parser.add_argument("--robot", default="", metavar="CONTRACT", help="another contract than the recorded one")


def _add_redact(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="to leave out, as in the bag: /scan")
    parser.add_argument("--texts", nargs="+", default=[], metavar="TEXT", help="to replace wherever they stand")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", type=Path, metavar="FOLDER", help="a new bag; the original stays")
    place.add_argument("--in-place", action="store_true", help="replace the bag, in one step")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="bags, a run, a data set, or bag of others")
    parser.add_argument("--into", type=Path, required=True, metavar="REPLAY", help="an SQLite file; made if missing")
    parser.add_argument(
        "--robot", default="", metavar="CONTRACT", help="through which a bag of others is read; else checked against"
    )
    foreign = parser.add_argument_group("for a bag that others recorded")
    foreign.add_argument("--task", default="", metavar="TEXT", help="what the person did, as an instruction")
    foreign.add_argument("--command", default="", metavar="TOPIC", help="what drove it (default: the contract's)")
    foreign.add_argument("--run", default="", metavar="NAME", help="name of the run (default: that of the bag)")
    foreign.add_argument(
        "--end",
        choices=("success", "failure", "truncated"),
        default="truncated",
        help="how the drive ended, where no outcome is in the bag (default: %(default)s)",
    )
    foreign.add_argument("--reward", type=float, default=1.0, metavar="R", help="of its last step (default: 1.0)")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 where something is wrong with a bag; 2 where there is none, or nothing in it to import."""
    actions = {"list": _list, "verify": _verify, "scenes": _scenes, "redact": _redact, "import": _import}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from llmagent_ros.recording.bags.inspection import entry
    from llmagent_ros.recording.bags.reader import find_bags

    entries = [entry(path) for path in find_bags(args.bags)]
    damaged = [each.problem for each in entries if each.problem]
    if args.json:
        plain = [dataclasses.asdict(each) | {"path": str(each.path)} for each in entries]
        print(json.dumps(plain, indent=2, ensure_ascii=False))
        return 1 if damaged else 0
    header = ("bag", "began", "episode", "task", "end", "reward", "steps", "adapter", "s", "MB")
    print(table(header, [_row(each) for each in entries]))
    total = sum(each.nbytes for each in entries) / 1e6
    print(f"\n{len(entries)} bags, {total:.1f} MB in {entries[0].path.parent}")
    for problem in damaged:
        print(printable(problem))
    return 1 if damaged else 0


def _row(each: BagEntry) -> tuple[str, ...]:
    size = f"{each.nbytes / 1e6:.2f}"
    if each.problem:
        return each.path.name, "", "", "", "damaged", "", "", "", "", size
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.began * 1e-9))
    end = "unfinished" if not each.finished else "none" if each.success is None else each.reason or "ended"
    task = each.task if len(each.task) <= _WIDTH else f"{each.task[: _WIDTH - 1]}…"
    numbers = (f"{each.reward:.2f}", str(each.steps), ", ".join(each.adapters[-1:]) or "-")
    return each.path.name, began, str(each.episode), task, end, *numbers, f"{each.duration:.1f}", size


def _verify(args: argparse.Namespace) -> int:
    from llmagent_ros.recording.bags.inspection import verify
    from llmagent_ros.recording.bags.reader import find_bags

    paths = find_bags(args.bags)
    problems = [problem for path in paths for problem in verify(path)]
    if args.json:
        print(json.dumps({"bags": len(paths), "problems": problems}, indent=2, ensure_ascii=False))
    else:
        print("\n".join(problems) if problems else f"sound: {len(paths)} bags")
    return 1 if problems else 0


def _scenes(args: argparse.Namespace) -> int:
    from llmagent_ros.experiments.recordings.contracts import recorded_contract
    from llmagent_ros.experiments.recordings.scenes import replay_scenes, verdict
    from llmagent_ros.recording.bags.reader import Bag

    bag = Bag(args.bag)
    scenes = list(replay_scenes(bag, recorded_contract(bag, args.robot)))
    unlike = [scene for scene in scenes if not scene.same]
    if args.json:
        print(json.dumps([_plain(scene) for scene in scenes], indent=2, ensure_ascii=False))
    else:
        for scene in unlike if args.check else scenes:
            _print_scene(scene, compare=args.check)
    if args.check and not args.json:
        print(verdict(scenes))
        if scenes[0].without:
            print(f"but for the part {', '.join(scenes[0].without)}, as no images were recorded (camera: true)")
    return 1 if args.check and unlike else 0


def _plain(scene: ReplayedScene) -> dict[str, Any]:
    said = None if scene.said is None else scene.said.text
    return {
        "stamp": scene.recorded.stamp,
        "recorded": scene.recorded.text,
        "said": said,
        "missing": scene.missing,
        "without": list(scene.without),
        "same": scene.same,
    }


def _print_scene(scene: ReplayedScene, *, compare: bool) -> None:
    stamp = f"{scene.recorded.stamp:.3f}"
    if scene.said is None:
        print(f"{stamp}  cannot be said again: {scene.missing} is not in the bag")
    elif compare:
        print(f"{stamp}  recorded: {scene.recorded.text}\n{'':{len(stamp)}}  said:     {scene.said.text}")
    else:
        print(f"{stamp}  {scene.said.text}")


def _redact(args: argparse.Namespace) -> int:
    from llmagent_ros.recording.bags.reader import Bag
    from llmagent_ros.recording.bags.redact import redact, redact_in_place

    bag = Bag(args.bag)
    if args.in_place:
        done = redact_in_place(bag, args.topics, args.texts)
    else:
        done = redact(bag, args.topics, args.texts, args.out)
    if args.json:
        print(json.dumps(dataclasses.asdict(done), indent=2))
    else:
        where = args.bag if args.in_place else args.out
        print(f"{where}: {done.removed} messages left out, {done.changed} changed, {done.kept} kept")
    return 0


def _import(args: argparse.Namespace) -> int:
    from llmagent_ros.contract import load_contract
    from llmagent_ros.experiments.recordings.transitions import Gaps, kept_transitions, store

    contract, gaps = load_contract(args.robot) if args.robot else None, Gaps()
    if _is_foreign(args.source):
        found = _demonstrated(args)
    else:
        found = kept_transitions(args.source, gaps)
    try:
        came, new = store(args.into, found, contract.phrases if contract is not None else ())
    finally:
        code = warn_of(gaps)
    if not came:
        raise ConfigError(f"{args.source}: nothing to import: there are no transitions")
    if args.json:
        print(json.dumps({"transitions": came, "new": new, "replay": str(args.into)}, indent=2))
    else:
        print(f"{args.into}: {new} of {came} transitions were new")
    return code


def _demonstrated(args: argparse.Namespace) -> Iterator[Transition]:
    from llmagent_ros.contract import load_mobile_contract
    from llmagent_ros.experiments.recordings.demonstrations import DemonstrationConfig, Demonstrations
    from llmagent_ros.experiments.recordings.foreign import foreign_messages

    if not args.robot or not args.task:
        raise ConfigError(f"{args.source}: recorded by others; give --robot CONTRACT and --task TEXT")
    contract = load_mobile_contract(args.robot)
    config = DemonstrationConfig(args.run or args.source.stem, args.task, args.command, args.end, args.reward)
    demonstrations = Demonstrations(contract, config)
    messages = foreign_messages(args.source, demonstrations.topics, demonstrations.needed_topics)
    return demonstrations.transitions(messages)


def _is_foreign(path: Path) -> bool:
    """Whether this is a bag without transitions of ours."""
    from llmagent_ros.experiments.recordings.transitions import REPLAY
    from llmagent_ros.recording.bags.facts import TRANSITION
    from llmagent_ros.recording.bags.metadata import METADATA
    from llmagent_ros.recording.bags.reader import Bag, is_bag

    if not path.exists():
        raise ConfigError(f"{path}: no such bag, run or data set")
    if is_bag(path):
        return all(topic.type != TRANSITION for topic in Bag(path).topics.values())
    return path.suffix in (".bag", ".db3") or ((path / METADATA).is_file() and not (path / REPLAY).is_file())
