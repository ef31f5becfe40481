"""Learn to see in a scene that a task is fulfilled, for a robot on which nobody says so.

    llmagent outcomes fit runs/navigate-0 --out runs/outcomes     # from the episodes that runs have stored
    llmagent outcomes show runs/outcomes                          # what was measured, and its reliability diagram
    ros2 launch llmagent_ros robot.launch.xml robot:=my_robot.yaml classifier:=runs/outcomes

Episodes are split in three: half to fit, a quarter to calibrate and to choose the threshold, a quarter to measure.
Exit code 1: no threshold has the wished precision; the folder is written to be looked at, and no node takes it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmagent_ros.outcomes.classifier import SceneClassifier

HELP = "learn to see in a scene that a task is fulfilled, and show how well"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "outcomes", help=HELP, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser("fit", help="fit a classifier to the episodes of runs")
    fit.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    fit.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="is made")
    fit.add_argument("--robot", default="sim_diffdrive", help="contract of the runs (default: %(default)s)")
    fit.add_argument("--model", default="", help="Hugging Face name or path (default: the base that ships)")
    fit.add_argument("--dtype", default="auto", help="of the base, as in the node (default: %(default)s)")
    fit.add_argument("--chat", action="store_true", help="in the model's own chat template, as with chat:=true")
    fit.add_argument("--precision", type=float, default=0.95, help="wished (default: %(default)s)")
    fit.add_argument("--last", type=int, default=1, metavar="N", help="last scenes that are success (default: 1)")
    fit.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    show = actions.add_parser("show", help="what was measured")
    show.add_argument("folder", type=Path, metavar="FOLDER")
    for each in (fit, show):
        each.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 when the classifier may not judge."""
    from llmagent_ros.cli._json import json_text
    from llmagent_ros.outcomes.classifier import load

    made = _fit(args) if args.action == "fit" else load(args.folder)
    folder = args.out if args.action == "fit" else args.folder
    if args.json:
        usable = made.threshold is not None
        facts = {"usable": usable, "threshold": made.threshold, "wordings": made.wordings, **made.about}
        print(json_text(facts))
    else:
        print(_text(made, folder))
    return 0 if made.threshold is not None else 1


def _fit(args: argparse.Namespace) -> SceneClassifier:
    from llmagent_ros import config
    from llmagent_ros.errors import StoreError
    from llmagent_ros.experiments.outcome_fitting import OutcomeFitConfig, fit_outcomes

    if args.out.exists():  # before minutes of work
        raise StoreError(f"{args.out}: already exists; give a folder that does not")
    values: dict[str, Any] = {key: getattr(args, key) for key in ("robot", "precision", "last", "seed")}
    values |= {"runs": args.runs, "model": {key: getattr(args, key) for key in ("model", "dtype", "chat")}}

    def progress(done: int, of: int) -> None:
        if sys.stderr.isatty():
            end = "" if done < of else "\n"
            print(f"\rfeatures of {done:,} of {of:,} scenes", end=end, file=sys.stderr, flush=True)

    return fit_outcomes(config.build(OutcomeFitConfig, values, "llmagent outcomes fit"), args.out, progress)


def _text(made: SceneClassifier, folder: Path) -> str:
    from llmagent_ros.cli._table import table
    from llmagent_ros.outcomes.classifier import DIAGRAM

    about, held = made.about, made.about["held_out"]
    episodes, by_episode = about["episodes"], about["held_out_episodes"]
    rows = [
        ("instructions", ", ".join(made.wordings)),
        ("episodes", f"{sum(episodes.values())}, {about['successes']} of success"),
        ("to fit / calibrate / held out", " / ".join(str(episodes[key]) for key in ("fit", "calibration", "held_out"))),
        ("held-out scenes", f"{held['scenes']:,}, {held['positives']} of success"),
        ("Brier score", f"{held['brier']:.4f} (always the mean: {held['prior']:.4f})"),
        ("expected calibration error", f"{held['ece']:.4f}"),
        ("AUROC", _figure(held["auroc"])),
        ("threshold", "none" if made.threshold is None else f"{made.threshold:.3f}, for {about['wished']:g} precision"),
        ("precision", f"{_figure(held['precision'])} ({held['true']} of {held['true'] + held['false']} scenes)"),
        ("recall", f"{_figure(held['recall'])} ({held['true']} of {held['positives']})"),
        ("successes seen", f"{by_episode['seen']} of {by_episode['successes']} held-out episodes"),
        ("ended too early", f"{by_episode['ended_early']} of {by_episode['episodes']} held-out episodes"),
    ]
    bins = [(f"{b['predicted']:.3f}", f"{b['observed']:.3f}", f"{b['count']:,}") for b in about["bins"]]
    parts = [table(("", ""), rows), table(("predicted", "observed", "scenes"), bins), f"{folder / DIAGRAM}"]
    if made.threshold is None:
        parts.append(
            f"Unusable: no threshold has a precision of {about['wished']:g} on the episodes to calibrate by; the best "
            f"is {about['best_precision']:.2f}. More labelled episodes, or a lower --precision."
        )
    return "\n\n".join(parts)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
