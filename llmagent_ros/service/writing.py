"""Files into a folder; what was changed there by hand stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmagent_ros.durable import write_atomic
from llmagent_ros.errors import ConfigError
from llmagent_ros.service.files import ServiceFile


def write(folder: Path, files: Sequence[ServiceFile], force: bool = False) -> list[str]:
    """Writes the files that are not there as they should be; the names of those.

    Args:
        force: also over files of another content.

    Raises:
        ConfigError: a file is there with another content, or cannot be read; nothing was written.
        StoreError: the folder cannot be made, or a file not be written.
    """
    present = {file.name: _text(folder / file.name) for file in files}
    changed = [file.name for file in files if present[file.name] not in (None, file.text)]
    if changed and not force:
        names = ", ".join(changed)
        raise ConfigError(f"{folder} holds other contents of {names}; --force overwrites, --dry-run shows the new")
    written = [file for file in files if present[file.name] != file.text]
    for file in written:
        write_atomic(folder / file.name, file.text.encode())
    return [file.name for file in written]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
