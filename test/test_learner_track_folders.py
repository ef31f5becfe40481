"""Folders of kinds of tasks: the first has the run's own, each later one its own, and all of them for good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmagent_ros.errors import StoreError
from llmagent_ros.learning.track_folders import NAME, TrackFolders


def test_the_first_kind_has_the_run_itself(tmp_path: Path) -> None:
    folders = TrackFolders(tmp_path)
    assert folders.latest == "" and folders.folder("") == tmp_path and not (tmp_path / NAME).exists()
    assert folders.enter("go to the object") == tmp_path
    assert folders.folder("") == tmp_path
    assert folders.enter("get away from the object") == tmp_path / "tasks" / "01"
    assert folders.enter("turn") == tmp_path / "tasks" / "02"
    assert folders.enter("go to the object") == tmp_path and folders.latest == "go to the object"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=12))
def test_another_process_finds_the_same_folders(tmp_path: Path, wordings: list[str]) -> None:
    (tmp_path / NAME).unlink(missing_ok=True)
    entered = {}
    for wording in wordings:
        folder = TrackFolders(tmp_path).enter(wording)
        assert entered.setdefault(wording, folder) == folder
    again = TrackFolders(tmp_path)
    assert again.latest == wordings[-1]
    assert {wording: again.folder(wording) for wording in entered} == entered
    assert len(set(entered.values())) == len(entered)


@pytest.mark.parametrize("content", ["", "[]", '{"folders": 3, "latest": ""}', json.dumps({"folders": {}})])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.raises(StoreError, match=NAME):
        TrackFolders(tmp_path)
