"""TensorBoard scalars without torch or TensorFlow in the process: TensorBoard's own protos and record format.

`torch.utils.tensorboard` costs seconds and hundreds of MB to import; `tensorboard.summary.writer.EventFileWriter`
imports TensorFlow where that is installed and reports a full disk on a thread of its own. So events are written here,
synchronously, through TensorBoard's `RecordWriter`.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.scalar.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from llmagent_ros.durable import make_folder
from llmagent_ros.errors import StoreError, UnknownNameError

TAGS: dict[str, str] = {
    "episode/success": "1 if the episode reached its task, else 0",
    "episode/success_last_20": "share of successes over the last min(20, n) episodes",
    "episode/return": "undiscounted sum of rewards of the episode",
    "episode/steps": "control periods of the episode",
    "episode/duration_s": "wall time of the episode, s",
    "policy/entropy": "entropy of the last decision's distribution over action phrases, nats",
    "policy/chosen_probability": "probability of the last decision's phrase under the acting policy",
    "policy/chosen_value": "critic's action value of the last decision's phrase, in units of return",
    "policy/compute_p99_ms": "99th percentile so far of the time from scene to choice inside the policy, ms",
    "control/scene_to_command_p50_ms": "median so far, from the publication of a scene to that of its command, ms",
    "control/scene_to_command_p99_ms": "99th percentile so far of the same, ms",
    "control/missed_tick_share": "share so far of control ticks without a fresh decision",
    "control/env_steps_per_s": "control periods per second of wall time since the last report",
    "learner/updates": "gradient steps so far",
    "learner/updates_per_s": "gradient steps per second of wall time since the last report",
    "learner/adapter_versions": "distinct adapter versions deployed so far",
    "learner/stats/*": "whatever the learner reports under that name, e.g. critic_loss; docs of the learner define it",
    "guard/interventions": "times the guard stopped, limited, dropped or overrode a command so far",
}
"""Every tag and its meaning. The step of all of them is env_steps, so that runs compare by experience."""

_STATS_PREFIX = "learner/stats/"
_MAX_STATS = 64
_FLUSH_PERIOD_S = 5.0


class TensorBoardWriter:
    """Appends scalars to one new event file in a folder.

    Raises (constructor and every method):
        StoreError: the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._described: set[str] = set()
        self._flushed = time.monotonic()
        try:
            self._file = self.path.open("xb")
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._records = RecordWriter(self._file)
        self._write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.flush()

    def scalar(self, tag: str, value: float, step: int, wall_time: float | None = None) -> None:
        """Add one point.

        Args:
            tag: one of `TAGS`. step: env_steps. wall_time: s since the epoch, now if None.

        Raises:
            UnknownNameError: the tag is not documented.
        """
        if tag not in TAGS or tag.endswith("*"):
            raise UnknownNameError("TensorBoard tag", tag, TAGS)
        self._scalar(tag, TAGS[tag], value, step, wall_time)

    def learner_stat(self, name: str, value: float, step: int) -> None:
        """Add one figure of the learner under learner/stats/; names after the first 64 are left out."""
        tag = _STATS_PREFIX + re.sub(r"[^A-Za-z0-9_./-]", "_", name)[:80]
        known = sum(described.startswith(_STATS_PREFIX) for described in self._described)
        if tag in self._described or known < _MAX_STATS:
            self._scalar(tag, TAGS[_STATS_PREFIX + "*"], value, step, None)

    def flush(self) -> None:
        """Hand everything to the operating system, so that a running TensorBoard sees it."""
        try:
            self._records.flush()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close; may be called twice."""
        if not self._file.closed:
            try:
                self._file.close()
            except OSError as error:
                raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _scalar(self, tag: str, meaning: str, value: float, step: int, wall_time: float | None) -> None:
        tensor = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_FLOAT, tensor_shape=tensor_shape_pb2.TensorShapeProto(), float_val=[value]
        )
        entry = summary_pb2.Summary.Value(tag=tag, tensor=tensor)
        if tag not in self._described:  # readers take the metadata from a tag's first point
            entry.metadata.CopyFrom(create_summary_metadata(display_name=tag, description=meaning))
            entry.metadata.data_class = summary_pb2.DATA_CLASS_SCALAR
            self._described.add(tag)
        stamp = time.time() if wall_time is None else wall_time
        self._write(event_pb2.Event(wall_time=stamp, step=step, summary=summary_pb2.Summary(value=[entry])))

    def _write(self, event: event_pb2.Event) -> None:
        try:
            self._records.write(event.SerializeToString())
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error
        if time.monotonic() - self._flushed > _FLUSH_PERIOD_S:
            self.flush()
