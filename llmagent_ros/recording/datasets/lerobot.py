"""Data sets in the layout of LeRobot, version 3.0 (huggingface/lerobot, `lerobot/datasets`), without needing it.

    meta/info.json                                features, counts, where the data are
    meta/stats.json                               statistics of the numeric features
    meta/tasks.parquet                            instructions and their numbers
    meta/episodes/chunk-000/file-000.parquet      a row for each episode: its frames, tasks and statistics
    data/chunk-000/file-000.parquet               a row for each step, a row group for each episode
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from llmagent_ros.durable import make_folder, sync
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.recording.datasets.rows import SCHEMA, from_batch, to_columns
from llmagent_ros.recording.datasets.statistics import statistics
from llmagent_ros.types import Transition

VERSION = "v3.0"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
_FILE_MB, _CHUNK = 100, 1000  # size of a data file, files in a folder
# fields of a transition by the features that hold them; the task is a number, and the others are there as well
_FEATURES = {
    "observation.scene": "scene",
    "action.phrase": "action",
    "next.reward": "reward",
    "next.observation.scene": "next_scene",
    "next.terminated": "terminated",
    "next.truncated": "truncated",
    "run": "run",
    "episode": "episode",
    "step": "step",
    "source": "source",
    "log_probability": "log_probability",
    "stamp": "stamp",
    "extra": "extra",
}
_INDICES = ("frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class DatasetFormat:
    """What a data set says beside the transitions.

    Attributes:
        fps: control periods per second. robot: name of the contract. phrases: the closed vocabulary.
        state_names, state: numbers of a scene, (names,). action_names, command: those of a phrase. None: as text only.
    """

    fps: float
    robot: str
    phrases: tuple[str, ...]
    state_names: tuple[str, ...] = ()
    state: Callable[[str], NDArray[np.float32]] | None = None
    action_names: tuple[str, ...] = ("index",)
    command: Callable[[str], NDArray[np.float32]] | None = None


def write_lerobot(folder: Path, transitions: Iterable[Transition], form: DatasetFormat) -> tuple[int, int]:
    """Writes a new data set, whole or not at all.

    Args:
        transitions: the steps of an episode, (run, episode), after one another.

    Returns:
        How many episodes and steps it holds.

    Raises:
        ConfigError: the folder is there already, there are no transitions, or a phrase is not in the vocabulary.
        StoreError: it cannot be written.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: is there already; give a new folder")
    make_folder(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    work.chmod(0o755)
    try:
        writer = _Writer(work, form)
        for _, steps in itertools.groupby(transitions, key=lambda each: (each.run, each.episode)):
            writer.add(list(steps))
        writer.finish()
        work.rename(folder)
        sync(folder.parent)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{folder}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return writer.episodes, writer.frames


def read_lerobot(folder: Path) -> Iterator[Transition]:
    """The transitions of a data set that `write_lerobot` has made, or one with its features.

    Raises:
        ConfigError: it is no such data set. StoreError: it is damaged.
    """
    info = read_info(folder)
    missing = [name for name in _FEATURES if name not in info.get("features", {})]
    if missing:
        raise ConfigError(
            f"{folder}: has no feature {missing[0]!r}: scenes cannot be made of what other robots' data sets hold"
        )
    try:
        table = pq.read_table(folder / TASKS)
        tasks = dict(zip(table["task_index"].to_pylist(), table["task"].to_pylist(), strict=True))
        for path in sorted(folder.glob("data/*/*.parquet")):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    yield from from_batch(_as_rows(batch, tasks), str(path))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StoreError(f"{folder}: cannot be read: {error}") from error


def read_info(folder: Path) -> dict[str, Any]:
    """meta/info.json.

    Raises:
        ConfigError: it is not there, or of another version.
    """
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: not a data set of LeRobot: {error}") from error
    if not isinstance(info, dict) or info.get("codebase_version") != VERSION:
        raise ConfigError(f"{folder}: not of LeRobot's version {VERSION}")
    return info


def _as_rows(batch: pa.RecordBatch, tasks: Mapping[int, str]) -> pa.RecordBatch:
    columns = {name: batch.column(feature) for feature, name in _FEATURES.items()}
    columns["task"] = pa.array([tasks[index] for index in batch.column("task_index").to_pylist()], pa.string())
    return pa.RecordBatch.from_pydict({name: columns[name] for name in SCHEMA.names})


@dataclass
class _Writer:
    """Writes episode after episode into `folder`, then what is told of them all."""

    folder: Path
    form: DatasetFormat
    episodes: int = 0
    frames: int = 0
    _tasks: dict[str, int] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)  # of meta/episodes
    _numbers: dict[str, list[NDArray[Any]]] = field(default_factory=dict)  # numeric columns of each episode
    _file: tuple[int, int] = (0, 0)  # chunk and file
    _nbytes: int = 0
    _writer: pq.ParquetWriter | None = None

    def add(self, steps: list[Transition]) -> None:
        table = self._table(steps)
        if self._writer is not None and self._nbytes + table.nbytes > _FILE_MB << 20:
            self._next_file()
        if self._writer is None:
            path = self.folder / DATA.format(chunk_index=self._file[0], file_index=self._file[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(str(path), table.schema, compression="snappy")
        self._writer.write_table(table)
        self._nbytes += table.nbytes
        self._rows.append(self._episode_row(steps, table))
        self.episodes += 1
        self.frames += len(steps)

    def finish(self) -> None:
        if self._writer is None:
            raise ConfigError("nothing to export: there are no transitions")
        self._writer.close()
        self._write_episodes()
        _write_tasks(self.folder / TASKS, self._tasks)
        totals = {name: statistics(np.concatenate(parts)) for name, parts in self._numbers.items()}
        _write_json(self.folder / STATS, totals)
        _write_json(self.folder / INFO, self._info())

    def _next_file(self) -> None:
        assert self._writer is not None
        self._writer.close()
        chunk, file = self._file
        self._file = (chunk + 1, 0) if file == _CHUNK - 1 else (chunk, file + 1)
        self._writer, self._nbytes = None, 0

    def _table(self, steps: list[Transition]) -> pa.Table:
        form, count = self.form, len(steps)
        columns, fields = to_columns(steps), {each.name: each.type for each in SCHEMA}
        for step in steps:
            self._tasks.setdefault(step.task, len(self._tasks))
            if step.action not in form.phrases:
                raise ConfigError(f"action {step.action!r} is none of the robot's: {', '.join(form.phrases)}")
        data: dict[str, pa.Array] = {}
        if form.state is not None:
            data["observation.state"] = _vectors([form.state(step.scene) for step in steps])
        data["action"] = _vectors([self._command(step.action) for step in steps])
        data["action.index"] = pa.array([form.phrases.index(step.action) for step in steps], pa.int64())
        for feature, name in _FEATURES.items():
            data[feature] = pa.array(columns[name], fields[name])
        data["next.done"] = pa.array([step.terminated or step.truncated for step in steps])
        data["next.success"] = pa.array([step.terminated and step.reward > 0 for step in steps])
        data["timestamp"] = pa.array([frame / form.fps for frame in range(count)], pa.float32())
        data["frame_index"] = pa.array(range(count), pa.int64())
        data["episode_index"] = pa.array([self.episodes] * count, pa.int64())
        data["index"] = pa.array(range(self.frames, self.frames + count), pa.int64())
        data["task_index"] = pa.array([self._tasks[step.task] for step in steps], pa.int64())
        return pa.table(data)

    def _command(self, phrase: str) -> NDArray[np.float32]:
        if self.form.command is not None:
            return self.form.command(phrase)
        return np.array([self.form.phrases.index(phrase)], np.float32)

    def _episode_row(self, steps: list[Transition], table: pa.Table) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": self.episodes,
            "tasks": list(dict.fromkeys(step.task for step in steps)),
            "length": len(steps),
            "data/chunk_index": self._file[0],
            "data/file_index": self._file[1],
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + len(steps),
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for name in table.column_names:
            if pa.types.is_string(table.schema.field(name).type):
                continue
            values = np.array(table.column(name).to_pylist(), np.float64)
            self._numbers.setdefault(name, []).append(values)
            row |= {f"stats/{name}/{key}": value for key, value in statistics(values).items()}
        return row

    def _write_episodes(self) -> None:
        path = self.folder / EPISODES.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._rows), path, compression="snappy")

    def _info(self) -> dict[str, Any]:
        fps = self.form.fps
        return {
            "codebase_version": VERSION,
            "fps": int(fps) if math.isclose(fps, round(fps)) else fps,
            "features": self._features(),
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _CHUNK,
            "data_files_size_in_mb": _FILE_MB,
            "video_files_size_in_mb": 200,
            "data_path": DATA,
            "video_path": None,
            "robot_type": self.form.robot,
            "splits": {"train": f"0:{self.episodes}"},
        }

    def _features(self) -> dict[str, dict[str, Any]]:
        fields, form = {each.name: each.type for each in SCHEMA}, self.form
        features: dict[str, dict[str, Any]] = {}
        if form.state is not None:
            features["observation.state"] = _feature("float32", len(form.state_names), list(form.state_names))
        features["action"] = _feature("float32", len(form.action_names), list(form.action_names))
        features["action.index"] = _feature("int64", 1, None)
        for feature, name in _FEATURES.items():
            features[feature] = _feature(_DTYPES[fields[name]], 1, None)
        features["next.done"] = features["next.success"] = _feature("bool", 1, None)
        features["timestamp"] = _feature("float32", 1, None)
        return features | {name: _feature("int64", 1, None) for name in _INDICES}


_DTYPES = {pa.string(): "string", pa.float64(): "float64", pa.int64(): "int64", pa.bool_(): "bool"}


def _feature(dtype: str, size: int, names: list[str] | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [size], "names": names}


def _vectors(rows: list[NDArray[np.float32]]) -> pa.Array:
    """As LeRobot keeps them: lists of one length, or plain numbers where that is 1."""
    table = np.stack(rows).astype(np.float32)
    flat = pa.array(table.reshape(-1))
    return flat if table.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, table.shape[1])


def _write_tasks(path: Path, tasks: Mapping[str, int]) -> None:
    """With the note by which pandas takes the instructions for the index, as LeRobot does."""
    table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()), "task": list(tasks)})
    columns = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    note = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in columns
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(note)}), path)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
