"""What a run leaves on disk: resumed, torn, killed, and with the disk full."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llmagent_ros.errors import StoreError, UnknownNameError
from llmagent_ros.recording.episodes import Episode, EpisodeLog, read_episodes, recorded_episodes
from llmagent_ros.recording.plot import plot_learning_curve, plot_runs
from llmagent_ros.recording.recorder import RecorderConfig, RunRecorder
from llmagent_ros.recording.summary import read_summary, write_summary
from llmagent_ros.recording.tensorboard import TAGS, TensorBoardWriter
from llmagent_ros.types import Decision


def episode(number: int, reason: str = "reached", reward: float = 1.5) -> Episode:
    return Episode("run", number, number % 2 == 0, reward, 10, reason, 3.25, 10 * (number + 1), f"v{number // 3:06d}")


def filled(path: Path, count: int) -> None:
    log = EpisodeLog(path)
    for number in range(count):
        log.append(episode(number))
    log.close()


def test_episodes_are_read_back_and_appended_to(tmp_path):
    path = tmp_path / "deep" / "episodes.csv"
    filled(path, 3)
    log = EpisodeLog(path)
    assert log.episodes == [episode(0), episode(1), episode(2)]
    log.append(episode(3))
    log.close()
    assert read_episodes(path) == [episode(i) for i in range(4)]


def test_a_run_that_goes_on_knows_how_many_episodes_it_has(tmp_path):
    assert recorded_episodes(tmp_path) == recorded_episodes(tmp_path / "none") == 0
    filled(tmp_path / "episodes.csv", 3)
    assert recorded_episodes(tmp_path) == 3


def test_every_cut_of_the_last_line_loses_only_that_episode(tmp_path):
    path = tmp_path / "episodes.csv"
    filled(path, 3)
    content = path.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(start, len(content)):
        path.write_bytes(content[:cut])
        assert read_episodes(path) == [episode(0), episode(1)]
        log = EpisodeLog(path)
        log.append(episode(2))
        log.close()
        assert path.read_bytes() == content


def test_a_cut_header_starts_over(tmp_path):
    path = tmp_path / "episodes.csv"
    path.write_bytes(b"run,epi")
    filled(path, 1)
    assert read_episodes(path) == [episode(0)]


@settings(max_examples=25, deadline=None)
@given(reason=st.text(), run=st.text(), reward=st.floats(allow_nan=False))
def test_any_words_and_rewards_come_back_as_one_line(tmp_path_factory, reason, run, reward):
    path = tmp_path_factory.mktemp("log") / "episodes.csv"
    log = EpisodeLog(path)
    log.append(Episode(run, 0, True, reward, 1, reason, 0.5, 1, "v"))
    log.append(episode(1))
    log.close()
    first, second = read_episodes(path)
    assert first.total_reward == reward and second == episode(1)
    assert path.read_bytes().count(b"\n") == 3
    if reason.isprintable():
        assert first.reason == reason


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        (b"a,b,c\n1,2,3\n", "expected the columns run,episode"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b"HEADER\nrun,zero,1,1.0,1,x,1.0,1,v\n", ":2: episode: 'zero'"),
        (b"HEADER\nrun,0,yes,1.0,1,x,1.0,1,v\n", ":2: success: 'yes'"),
        (b"HEADER\nrun,0\n", ":2: 2 columns, expected 9"),
    ],
)
def test_a_file_that_is_no_list_of_episodes_is_refused_and_left_alone(tmp_path, content, culprit):
    path = tmp_path / "episodes.csv"
    header = b"run,episode,success,total_reward,steps,reason,duration_s,env_steps,adapter"
    content = content.replace(b"HEADER", header)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=culprit):
        EpisodeLog(path)
    assert path.read_bytes() == content


def test_a_second_recorder_and_an_unwanted_resume_are_refused(tmp_path):
    path = tmp_path / "episodes.csv"
    log = EpisodeLog(path)
    log.begin()
    with pytest.raises(StoreError, match=r"episodes\.csv: in use by another recorder"):
        EpisodeLog(path)
    log.append(episode(0))
    log.close()
    with pytest.raises(StoreError, match="already holds 1 episodes"):
        EpisodeLog(path, resume=False)
    EpisodeLog(path).close()  # the refused ones let go of the lock


def test_episodes_survive_kill_9(tmp_path):
    path = tmp_path / "episodes.csv"
    code = (
        "import sys; from pathlib import Path\n"
        "from llmagent_ros.recording.episodes import Episode, EpisodeLog\n"
        "log = EpisodeLog(Path(sys.argv[1])); number = 0\n"
        "while True:\n"
        "    log.append(Episode('r', number, True, 0.5, 1, 'reached', 1.0, number + 1, 'v')); number += 1\n"
        "    print(number, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = 0
    while acknowledged < 20:
        acknowledged = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split("\n")[:-1]
    child.wait()
    acknowledged = int(rest[-1]) if rest else acknowledged
    log = EpisodeLog(path)
    assert [entry.episode for entry in log.episodes[:acknowledged]] == list(range(acknowledged))
    log.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from llmagent_ros.errors import StoreError
from llmagent_ros.recording.episodes import Episode, EpisodeLog
from llmagent_ros.recording.summary import write_summary
out = Path(sys.argv[1])
log = EpisodeLog(out / "episodes.csv")
limit = (out / "episodes.csv").stat().st_size + 10
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for attempt in (lambda: log.append(Episode("r", 9, True, 1.0, 1, "reached", 1.0, 1, "v" * 40)),
                lambda: write_summary(out / "summary.json", {"model": "m" * limit})):
    try:
        attempt()
    except StoreError as error:
        print(error)
"""


def test_a_full_disk_keeps_what_was_there(tmp_path):
    filled(tmp_path / "episodes.csv", 2)
    write_summary(tmp_path / "summary.json", {"episodes": 2})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "episodes.csv: cannot be written: File too large" in done.stdout
    assert "summary.json: cannot be written: File too large" in done.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_summary_is_json_without_nan_and_readable_by_others(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": 0.5}, "e": "é\ud800"})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.0, None], "c": {"d": 0.5}, "e": "é?"}
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("{")
    with pytest.raises(StoreError, match=r"summary\.json: not JSON"):
        read_summary(path)


def test_tensorboard_reads_back_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    writer = TensorBoardWriter(tmp_path)
    writer.scalar("episode/return", 1.5, step=10, wall_time=100.0)
    writer.scalar("episode/return", -0.5, step=20, wall_time=101.0)
    for number in range(100):
        writer.learner_stat(f"loss {number}", float(number), step=5)
    with pytest.raises(UnknownNameError, match="unknown TensorBoard tag 'episode/retrun'; valid: control/"):
        writer.scalar("episode/retrun", 1.0, step=1)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = events.Tensors("episode/return")
    assert [(p.wall_time, p.step, float(make_ndarray(p.tensor_proto))) for p in points] == [
        (100.0, 10, 1.5),
        (101.0, 20, -0.5),
    ]
    assert events.SummaryMetadata("episode/return").summary_description == TAGS["episode/return"]
    stats = [tag for tag in events.Tags()["tensors"] if tag.startswith("learner/stats/")]
    assert len(stats) == 64 and "learner/stats/loss_7" in stats


def test_recorder_modules_import_neither_torch_nor_matplotlib():
    code = (
        "import sys, llmagent_ros.recording.recorder, llmagent_ros.console.live;"
        "print({'torch', 'tensorflow', 'matplotlib', 'rclpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_pictures_are_drawn_for_any_number_of_episodes(tmp_path):
    for count in (0, 40):
        run = [episode(number, reward=float(number)) for number in range(count)]
        plot_learning_curve(run, tmp_path / "curve.png", "base $x$ [b], seed 0")
        with Image.open(tmp_path / "curve.png") as picture:
            colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
            assert picture.width > 1000 and len(colours) > 20
    plot_runs([("seed 0", run), ("seed 1", run[:30]), ("seed 2", [])], tmp_path / "runs.png", "three seeds")
    with Image.open(tmp_path / "runs.png") as picture:
        assert picture.width > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "runs.png"]


@pytest.mark.parametrize("episodes", [0, 2])
def test_a_run_that_never_began_leaves_its_folder_as_it_was(tmp_path, episodes):
    out = tmp_path / "runs" / "out"
    if episodes:
        filled(out / "episodes.csv", episodes)
        with (out / "episodes.csv").open("ab") as file:
            file.write(b"cut o")
        (out / "summary.json").write_text("{}")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    recorder = RunRecorder(RecorderConfig(out, 0, "/no/such/model", report_period=1e-6))
    recorder.on_learner(3, {"critic_loss": 1.0})
    recorder.on_guard({})
    recorder.on_tick(fresh=False)
    assert recorder.finish(complete=False) is None
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_recorder_writes_the_whole_folder_and_resumes(tmp_path):
    config = RecorderConfig(out=tmp_path, seed=3, model="/models/base", report_period=1e-6, summary_period=1e-6)
    decision = Decision("a", 0.0, ("a", "b"), np.array([0.5, 0.5]), np.array([0.25, 0.0]), "v1")
    first = RunRecorder(config)
    first.on_decision(decision, 3.0, 0, "r")
    first.on_episode_end(0, True, 1.0, 1, "reached", 0.1, run="r")
    assert read_summary(tmp_path / "summary.json")["finished"] is False
    first.close()  # as a kill would leave it
    interrupted = RunRecorder(config)
    interrupted.on_decision(decision, 3.0, 1, "r")
    assert interrupted.finish(complete=False)["finished"] is False
    assert not (tmp_path / "learning_curve.png").exists(), "no new episode: nothing to import Matplotlib for"
    assert read_summary(tmp_path / "summary.json")["finished"] is False

    second = RunRecorder(config)
    second.on_episode_end(0, True, 1.0, 1, "reached", 0.1, run="r")  # latched, delivered again
    second.on_decision(decision, 3.0, 1, "r")
    second.on_latency(4.0)
    second.on_tick(fresh=True)
    second.on_learner(12, {"critic_loss": 0.5})
    second.on_guard({"speed": 1})
    second.on_adapter("v2")
    second.on_episode_end(1, False, 0.0, 1, "collision", 0.1, run="r")
    summary = second.finish()
    assert summary == read_summary(tmp_path / "summary.json")
    assert (summary["episodes"], summary["resumed_episodes"], summary["finished"]) == (2, 1, True)
    assert (summary["env_steps"], summary["adapter_versions"], summary["updates"]) == (2, 2, 12)
    assert [entry.adapter for entry in read_episodes(tmp_path / "episodes.csv")] == ["v1", "v2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "episodes.csv",
        "learning_curve.png",
        "summary.json",
        "tensorboard",
    ]
