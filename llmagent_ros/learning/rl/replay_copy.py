"""A replay's copy, for a learner of its own."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from llmagent_ros.errors import StoreError


def copy_replay(source: Path, target: Path) -> None:
    """Copies what a replay holds now, with its features, to where there is none yet; its writer may go on meanwhile.

    Raises:
        StoreError: it cannot be read, or there is not room for it. Nothing is at `target` then.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    uri = f"file:{quote(str(source.absolute()))}?mode=ro"
    begun = target.with_name(f"{target.name}.part")
    try:
        begun.unlink(missing_ok=True)  # of one that was interrupted
        # In this order, as a writer goes on: a mark without its row, or a row of a text that is not in the copy, would
        # pass for features of a text that the copy gets later.
        for ending in ("present", "features"):
            for beside in source.parent.glob(f"{source.name}.*.{ending}"):
                shutil.copyfile(beside, target.with_name(target.name + beside.name.removeprefix(source.name)))
        with closing(sqlite3.connect(uri, uri=True)) as store, closing(sqlite3.connect(begun)) as new:
            store.backup(new)
        begun.replace(target)
    except (OSError, sqlite3.Error) as error:
        begun.unlink(missing_ok=True)
        raise StoreError(f"{source}: cannot be copied to {target}: {error}") from error
