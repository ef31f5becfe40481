"""One Parquet file of transitions: a row for each, with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llmagent_ros import __version__
from llmagent_ros.durable import make_folder, sync
from llmagent_ros.errors import ConfigError, StoreError
from llmagent_ros.recording.datasets.rows import SCHEMA, from_batch, to_columns
from llmagent_ros.types import Transition

_ROWS = 4096  # of a row group


def write_parquet(path: Path, transitions: Iterable[Transition], facts: Mapping[str, str]) -> int:
    """Writes a new file, whole or not at all; how many rows it has.

    Args:
        facts: about where they come from, in the file's metadata.

    Raises:
        ConfigError: there is such a file already. StoreError: it cannot be written.
    """
    if path.exists():
        raise ConfigError(f"{path}: is there already; give a new file")
    make_folder(path.parent)
    schema = SCHEMA.with_metadata({"llmagent_ros": __version__, **facts})
    temporary, rows = path.with_name(f".{path.name}.tmp"), 0
    waiting = iter(transitions)
    try:
        with pq.ParquetWriter(str(temporary), schema, compression="zstd") as writer:
            while group := list(islice(waiting, _ROWS)):
                writer.write_table(pa.Table.from_pydict(to_columns(group), schema=schema))
                rows += len(group)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def read_parquet(path: Path) -> Iterator[Transition]:
    """The transitions of a file in their order.

    Raises:
        StoreError: it cannot be read, or is not such a file.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                yield from from_batch(batch, str(path))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
