"""Look at the skills that a robot has learned, and take them from one store to another.

    llmagent skills list                                # of the one store below runs/
    llmagent skills search "drive to the crimson ball" --store runs/s0/knowledge
    llmagent skills show ID
    llmagent skills export ID my_skill/                 # a folder that PEFT loads, with a card
    llmagent skills import my_skill/ --store runs/s1/knowledge
    llmagent skills log                                 # what happened to the skills, and why
    llmagent skills verify                              # exit code 1 when something is wrong, 2 when it cannot open

While a knowledge node has a store open, its services answer instead of this command.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmagent_ros.cli._json import json_text
from llmagent_ros.cli._table import table
from llmagent_ros.console.text import clean, printable
from llmagent_ros.errors import ConfigError

if TYPE_CHECKING:
    from llmagent_ros.knowledge.audit import AuditEntry
    from llmagent_ros.knowledge.knowledge import Knowledge
    from llmagent_ros.knowledge.skill import Skill
    from llmagent_ros.knowledge.store import SkillStore

HELP = "look at learned skills, export and import them"
DATABASE = "skills.sqlite"
_ACTOR = "llmagent skills"
_WIDTH = 60  # characters of a cell
_MOST = 1_000_000_000  # rows


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "skills", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", type=Path, metavar="DIR", help="default: runs/*/knowledge, if there is one only")
    common.add_argument(
        "--embedder", default="", metavar="MODEL", help="that the store was made with, if not the default"
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    reason = argparse.ArgumentParser(add_help=False)
    reason.add_argument("--reason", default="", metavar="TEXT", help="for the log")
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)

    def add(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=f"{text}.", parents=[common, *parents])

    add("list", "the skills, in the order they were stored").add_argument("--limit", type=int, default=100, metavar="N")
    search = add("search", "the skills that are nearest to a text")
    search.add_argument("text", metavar="TEXT")
    search.add_argument("-k", type=int, default=5, metavar="N", help="how many (default: %(default)s)")
    search.add_argument("--contract", default="", metavar="C", help="only of this robot contract")
    search.add_argument(
        "--min-success", type=float, default=0.0, metavar="R", help="only with this success rate, 0 to 1"
    )
    add("show", "all that is known of a skill").add_argument("id", metavar="ID")
    export = add("export", "write a skill to a new folder, which PEFT loads as an adapter")
    export.add_argument("id", metavar="ID")
    export.add_argument("folder", type=Path, metavar="FOLDER", help="must not be there yet")
    taken = add("import", "store the skill of an exported folder, or of a bundle", reason)
    taken.add_argument("folder", type=Path, metavar="FOLDER")
    taken.add_argument("--description", default="", metavar="TEXT", help="of a bundle without skill.json")
    taken.add_argument("--as-new", action="store_true", help="give it an id of its own")
    delete = add("delete", "delete a skill; the log of it stays", reason)
    delete.add_argument("id", metavar="ID")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    add("verify", "check database, bundles and index; exit code 1 when something is wrong")
    log = add("log", "the changes, newest first")
    log.add_argument("--skill", metavar="ID", help="of one skill, deleted or not")
    log.add_argument("--limit", type=int, default=50, metavar="N", help="default: %(default)s")
    return parser


def run(args: argparse.Namespace) -> int:
    folder = store_folder(args.store, new=args.action == "import")
    if args.action in ("list", "show", "log"):
        return _read(args, folder)
    if args.action == "import" and not (folder / DATABASE).is_file():
        from llmagent_ros.knowledge.exchange import read_folder

        read_folder(args.folder, args.description)  # what is refused leaves no empty store
    with _opened(folder, args.embedder) as knowledge:
        return _ACTIONS[args.action](args, knowledge)


def store_folder(given: Path | None, runs: Path = Path("runs"), *, new: bool = False) -> Path:
    """The store that is meant.

    Args:
        new: one that is named need not be there yet.

    Raises:
        ConfigError: it is not there, or none was named and there is not exactly one below `runs`.
    """
    if given is not None:
        if not new and not (given / DATABASE).is_file():
            raise ConfigError(f"--store {given}: no store of skills (no {DATABASE} in it)")
        return given
    found = sorted(path.parent for path in runs.glob(f"*/knowledge/{DATABASE}"))
    if len(found) != 1:
        choices = ", ".join(map(str, found)) or f"(none below {runs})"
        raise ConfigError(f"--store: say which store of skills; valid: {choices}")
    return found[0]


def _read(args: argparse.Namespace, folder: Path) -> int:
    """What needs the database only: no model is loaded for it."""
    from llmagent_ros.knowledge.store import SkillStore

    store = SkillStore(folder)
    try:
        _tell_migration(store)
        if args.action == "show":
            _show(store.get(args.id), args.json)
            return 0
        if not 1 <= args.limit <= _MOST:
            raise ConfigError(f"--limit {args.limit}; valid: 1 to {_MOST:,}")
        if args.action == "log":
            _log(store.audit(args.skill, args.limit), args.json)
        else:
            _list(list(itertools.islice(store.skills(), args.limit)), store.totals()[0], args.json)
    finally:
        store.close()
    return 0


def _opened(folder: Path, model: str) -> Knowledge:
    """The store with its index.

    Raises:
        ConfigError: another embedder made its vectors; to open it with this one would embed everything anew.
    """
    from llmagent_ros.knowledge.embedding import PACKAGED, EmbedderConfig, SentenceEmbedder
    from llmagent_ros.knowledge.knowledge import Knowledge
    from llmagent_ros.knowledge.store import SkillStore

    embedder = SentenceEmbedder(EmbedderConfig(model=model or PACKAGED))
    store = SkillStore(folder)
    _tell_migration(store)
    known = store.meta("embedder")
    store.close()
    if known not in ("", embedder.digest):
        raise ConfigError(
            f"--embedder {model or PACKAGED}: the store {folder} was made with another model; name that one"
        )
    return Knowledge(folder, embedder)


def _tell_migration(store: SkillStore) -> None:
    if version := store.database.migrated_from:
        print(f"the store was of version {version} and was brought up to the present one", file=sys.stderr)


def _list(skills: list[Skill], total: int, as_json: bool) -> None:
    if as_json:
        print(json_text([_plain(skill) for skill in skills]))
        return
    print(table(("id", "skill", "contract", "succeeded", "lessons", "updated"), [_row(skill) for skill in skills]))
    if total > len(skills):
        print(f"\n{total - len(skills):,} more; --limit shows them")


def _show(skill: Skill, as_json: bool) -> None:
    plain = _plain(skill)
    if as_json:
        print(json_text(plain))
        return
    told = {"success": _success(skill), "created": _date(skill.created), "updated": _date(skill.updated)}
    lists = {name: plain[name] or ["-"] for name in ("instructions", "parents")}
    lists["lessons"] = [str(lesson) for lesson in skill.lessons] or ["-"]
    texts = {name: plain[name] or "-" for name in ("id", "description", "contract", "digest")}
    for name, value in (texts | told).items():
        print(f"{name + ':':<14} {clean(value)}")
    for name, values in lists.items():
        print(f"{name + ':':<14} " + f"\n{'':15}".join(map(clean, values)))


def _log(entries: list[AuditEntry], as_json: bool) -> None:
    if as_json:
        print(json_text([dataclasses.asdict(entry) for entry in entries]))
        return
    rows = [
        (
            _date(each.time),
            each.skill or "-",
            each.event,
            each.actor or "-",
            each.reason or "-",
            _short(json.dumps(each.data)),
        )
        for each in entries
    ]
    print(table(("time", "skill", "event", "by", "why", "what"), rows))


def _search(args: argparse.Namespace, knowledge: Knowledge) -> int:
    found = knowledge.retrieve(args.text, args.k, args.contract, args.min_success)
    if args.json:
        told = [{"similarity": round(one.similarity, 4), **_plain(one.skill)} for one in found]
        print(json_text(told))
        return 0
    rows = [(f"{one.similarity:.3f}", *_row(one.skill)) for one in found]
    print(table(("similarity", "id", "skill", "contract", "succeeded", "lessons", "updated"), rows))
    return 0


def _export(args: argparse.Namespace, knowledge: Knowledge) -> int:
    from llmagent_ros.knowledge.exchange import export_skill

    skill = export_skill(knowledge, args.id, args.folder)
    _say(args, f"skill {skill.id} exported: {args.folder}", {"id": skill.id, "folder": str(args.folder)})
    return 0


def _import(args: argparse.Namespace, knowledge: Knowledge) -> int:
    from llmagent_ros.knowledge.exchange import import_skill

    given = {"description": args.description, "as_new": args.as_new, "reason": args.reason}
    skill = import_skill(knowledge, args.folder, actor=f"{_ACTOR} import", **given)
    _say(args, f"skill {skill.id} imported: {clean(skill.description)}", _plain(skill))
    return 0


def _delete(args: argparse.Namespace, knowledge: Knowledge) -> int:
    from llmagent_ros.knowledge.audit import Cause

    skill = knowledge.get(args.id)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError("skills delete: give --yes, as there is no terminal to ask on")
        if not _agreed(f"delete {skill.id}, {skill.description!r}? [y/N] "):
            print("not deleted")
            return 1
    knowledge.delete(skill.id, cause=Cause(args.reason, f"{_ACTOR} delete"))
    _say(args, f"skill {skill.id} deleted: {clean(skill.description)}", {"id": skill.id})
    return 0


def _agreed(question: str) -> bool:
    """What a person answers on the terminal; Ctrl-D is a no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _verify(args: argparse.Namespace, knowledge: Knowledge) -> int:
    problems, stats = knowledge.verify(), knowledge.stats()
    if args.json:
        print(json_text({"problems": problems, **dataclasses.asdict(stats)}))
    elif problems:
        print(printable("\n".join(problems)))
    else:
        counts = f"{stats.skills:,} skills, {stats.vectors:,} vectors, {stats.bundles:,} bundles"
        print(printable(f"sound: {counts}; index {stats.opened}"))
    return 1 if problems else 0


_ACTIONS = {"search": _search, "export": _export, "import": _import, "delete": _delete, "verify": _verify}


def _say(args: argparse.Namespace, text: str, values: dict[str, Any]) -> None:
    print(json_text(values) if args.json else text)


def _plain(skill: Skill) -> dict[str, Any]:
    return {
        **dataclasses.asdict(skill),
        "path": str(skill.path) if skill.path else "",
        "success_rate": skill.success_rate,
    }


def _row(skill: Skill) -> tuple[str, ...]:
    found = skill.id, _short(skill.description), skill.contract or "-"
    return *found, _success(skill), str(len(skill.lessons)), _date(skill.updated)


def _success(skill: Skill) -> str:
    return f"{skill.successes} of {skill.attempts}" if skill.attempts else "never tried"


def _short(text: str) -> str:
    shown = clean(text)
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 1]}…"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
