"""Which text is the mirror image of which, in memory: 4 bytes a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.learning.rl.replay_index import GrowingArray

_UNSEEN = -2  # nobody has looked for its image yet; -1: it has none


class MirrorImages:
    """Ids of mirror images by ids of texts, 0, 1, 2, …; what is on disk is the store's."""

    def __init__(self) -> None:
        self._images = GrowingArray(np.int32)
        self._looked_at = 0  # all texts below were looked at

    @property
    def nbytes(self) -> int:
        return self._images.nbytes

    def note(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Takes in (text id, id of its image or -1)."""
        if pairs:
            texts, images = np.asarray(pairs, np.int64).T
            self._of(int(texts.max()) + 1)[texts] = images

    def forget(self, texts: int) -> None:
        """Of all but the first `texts`, as texts and as images."""
        kept, self._images, self._looked_at = self._images.values[:texts], GrowingArray(np.int32), 0
        self._images.extend(np.where(kept >= texts, _UNSEEN, kept))

    def unseen(self, limit: int, texts: int) -> list[int]:
        """Up to `limit` of the ids below `texts` that were not noted, lowest first."""
        images = self._of(texts)
        unseen = self._looked_at + np.flatnonzero(images[self._looked_at :] == _UNSEEN)
        self._looked_at = int(unseen[0]) if len(unseen) else len(images)
        return [int(text_id) for text_id in unseen[:limit]]

    def get(self, text_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of images of texts of any shape, below 0 where there is none (yet)."""
        known = self._images.values
        found = np.full(text_ids.shape, _UNSEEN, np.int64)
        there = text_ids < len(known)
        found[there] = known[text_ids[there]]
        return found

    def _of(self, texts: int) -> NDArray[np.int32]:
        self._images.extend(np.full(max(0, texts - len(self._images)), _UNSEEN))
        return self._images.values
