"""Which folder of a run belongs to which kind of task."""

from __future__ import annotations

import json
from pathlib import Path

from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import StoreError

NAME = "tracks.json"


class TrackFolders:
    """OUT itself belongs to the first kind of task, OUT/tasks/01 … to those after it; OUT/tracks.json says which.

    A kind has one folder at a time. Where the robot has changed it gets another, and the one before is kept.

    Attributes:
        latest: wording of the kind that was worked on last; empty before the first.

    Raises:
        StoreError: the file cannot be read or written.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / NAME
        self._folders: dict[str, str] = {}
        self._former: list[tuple[str, str]] = []  # wording and folder
        self.latest = ""
        if self._path.exists():
            self._read()

    def folder(self, wording: str) -> Path:
        """Of a kind of task; the empty wording stands for the first one while it is not known."""
        return self._out / self._folders.get(wording, "." if not self._folders or not wording else self._next())

    def enter(self, wording: str) -> Path:
        """The folder of the kind that is worked on from now on, which is new when the kind is."""
        folder = self.folder(wording)
        if wording != self.latest:
            self._folders.setdefault(wording, str(folder.relative_to(self._out)))
            self.latest = wording
            self._write()
        return folder

    def former(self, wording: str) -> list[Path]:
        """Folders that a kind of task had before, oldest first."""
        return [self._out / folder for kind, folder in self._former if kind == wording]

    def renew(self, wording: str, again: Path | None = None) -> Path:
        """Gives a kind of task that has a folder a new one, or one of its `former` ones `again`; returns it."""
        before = self._folders[wording]
        if again is None:
            self._folders[wording] = self._next()
        else:
            self._former.remove((wording, str(again.relative_to(self._out))))
            self._folders[wording] = str(again.relative_to(self._out))
        self._former.append((wording, before))
        self._write()
        return self.folder(wording)

    def _next(self) -> str:
        return f"tasks/{len(self._folders) + len(self._former):02d}"

    def _write(self) -> None:
        content = {"latest": self.latest, "folders": self._folders, "former": self._former}
        write_atomic(self._path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def _read(self) -> None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            self._folders, self.latest = dict(content["folders"]), str(content["latest"])
            self._former = [(str(wording), str(folder)) for wording, folder in content.get("former", [])]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._path}: cannot be read: {error!r}") from error
