"""p(success | scene): regularised logistic regression on features of the frozen base, calibrated by Platt's method.

A folder holds it: `classifier.safetensors` (mean, scale, weight, each (D,); bias, slope, offset, each ()),
`classifier.json` (what it is for, its threshold, what was measured, and the SHA-256 of the tensors) and
`reliability.png`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from llmagent_ros.durable import write_folder
from llmagent_ros.errors import ModelError, StoreError
from llmagent_ros.outcomes.measures import Floats, Labels

FORMAT, VERSION = "llmagent-outcome-classifier", 1
TENSORS, MANIFEST, DIAGRAM = "classifier.safetensors", "classifier.json", "reliability.png"
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: the inverse of the regularisation
FOLDS = 4
_NAMES = ("mean", "scale", "weight", "bias", "slope", "offset")
_MAX_BYTES = 1 << 24  # of either file


def scene_text(instruction: str, scene: str) -> str:
    """What is classified: the scene, which has the instruction in it or gets it put before it."""
    return scene if instruction.lower() in scene.lower() else f"{instruction}. {scene}"


@dataclass(frozen=True)
class SceneClassifier:
    """A fitted and calibrated classifier.

    Attributes:
        tensors: see the module. feature_digest: of the base, prompt and projection that features must be of.
        wordings: instructions that it was fitted to, with "object" for the names of objects.
        threshold: from which on a scene counts as one of success; None: there is none of the wished precision, and the
            classifier must not judge. about: what was measured, and of what.
    """

    tensors: Mapping[str, Floats]
    feature_digest: str
    wordings: tuple[str, ...]
    threshold: float | None
    about: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, features: ArrayLike) -> Floats:
        """Log-odds before calibration, (N,), of features (N, D)."""
        t = self.tensors
        scaled = (np.asarray(features, np.float64) - t["mean"]) / t["scale"]
        return np.asarray(scaled @ t["weight"] + t["bias"], np.float64)

    def probabilities(self, features: ArrayLike) -> Floats:
        """p(success | scene) = σ(slope · score + offset), (N,)."""
        return _sigmoid(self.tensors["slope"] * self.scores(features) + self.tensors["offset"])

    def check(self, feature_digest: str) -> None:
        """Raises ModelError unless features of a base with this digest are what it was fitted to, and it may judge."""
        if self.feature_digest != feature_digest:
            raise ModelError("outcome classifier: made for another base model or prompt; fit it again with this one")
        if self.threshold is None:
            raise ModelError(
                f"outcome classifier: unusable: no threshold has the wished precision of {self.about['wished']:g} (the "
                f"best is {self.about['best_precision']:.2f}); fit it with more labelled episodes, or wish for less"
            )


def fit(
    features: Floats, labels: Labels, episodes: ArrayLike, *, feature_digest: str, wordings: tuple[str, ...]
) -> SceneClassifier:
    """Logistic regression with the L2 penalty whose log loss is least in cross-validation by episodes; not calibrated.

    Args:
        features: (N, D). labels: (N,). episodes: (N,), which episode each scene is of.
    """
    groups = np.asarray(episodes)
    folds = StratifiedGroupKFold(min(FOLDS, len(np.unique(groups[labels]))))

    def made(penalty: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))

    def loss(penalty: float) -> float:
        scores = cross_val_score(
            made(penalty), features, labels, groups=groups, cv=folds, scoring="neg_log_loss", error_score="raise"
        )
        return -float(np.mean(scores))

    best = min(PENALTIES, key=loss)
    scaler, regression = (step for _, step in made(best).fit(features, labels).steps)
    tensors = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "weight": regression.coef_[0],
        "bias": regression.intercept_[0],
        "slope": 1.0,
        "offset": 0.0,
    }
    about = {"penalty": best}
    return SceneClassifier(_as_arrays(tensors), feature_digest, wordings, None, about)


def platt(scores: Floats, labels: Labels) -> tuple[float, float]:
    """Slope and offset of σ(slope · score + offset), by maximum likelihood with Platt's targets.

    Platt, "Probabilistic outputs for support vector machines" (1999): a positive counts as (n₊ + 1) / (n₊ + 2), a
    negative as 1 / (n₋ + 2), so that scores that separate perfectly do not give certainty. Isotonic regression is left
    aside since it needs more positives than an episode's one end gives (Niculescu-Mizil & Caruana, ICML 2005).

    Args:
        scores, labels: (N,), of scenes that the classifier was not fitted to, with both classes among them.
    """
    positives = int(labels.sum())
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    twice = np.concatenate([scores, scores])[:, None]  # each as a positive and as a negative, weighted by its target
    both = np.repeat([True, False], len(scores))
    weights = np.concatenate([targets, 1 - targets])
    scale = float(np.std(scores)) or 1.0
    fitted = LogisticRegression(C=np.inf, max_iter=2000).fit(twice / scale, both, sample_weight=weights)
    return float(fitted.coef_[0, 0]) / scale, float(fitted.intercept_[0])


def calibrated(classifier: SceneClassifier, features: Floats, labels: Labels) -> SceneClassifier:
    """The same with `platt` on scenes that it was not fitted to."""
    slope, offset = platt(classifier.scores(features), labels)
    tensors = {**classifier.tensors, **_as_arrays({"slope": slope, "offset": offset})}
    return SceneClassifier(
        tensors, classifier.feature_digest, classifier.wordings, classifier.threshold, classifier.about
    )


def save(classifier: SceneClassifier, folder: Path, diagram: bytes) -> None:
    """Writes it whole or not at all.

    Raises:
        StoreError: the folder exists, or cannot be written.
    """
    tensors = dump_tensors({name: np.array(value, order="C") for name, value in classifier.tensors.items()})
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": hashlib.sha256(tensors).hexdigest(),
        "feature_digest": classifier.feature_digest,
        "wordings": classifier.wordings,
        "threshold": classifier.threshold,
        "about": dict(classifier.about),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode()
    if os.path.lexists(folder):
        raise StoreError(f"{folder}: already exists; give a folder that does not")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, {TENSORS: tensors, MANIFEST: text, DIAGRAM: diagram})
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StoreError(f"{folder}: cannot be saved: {'no space left' if full else error.strerror}") from error


def load(folder: Path) -> SceneClassifier:
    """Reads one, its tensors checked against their hash.

    Raises:
        ModelError: it is missing, damaged, or something else; names the file.
    """
    manifest = _manifest(folder / MANIFEST)
    data = _read(folder / TENSORS)
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise ModelError(f"{folder / TENSORS}: damaged: its SHA-256 is not the one in {MANIFEST}")
    try:
        tensors = _as_arrays(load_tensors(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / TENSORS}: not safetensors: {error}") from error
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    size = tensors["weight"].size if "weight" in tensors else 0
    if shapes != {name: (size,) if name in _NAMES[:3] else () for name in _NAMES} or not size:
        raise ModelError(f"{folder / TENSORS}: holds {shapes}; valid: {', '.join(_NAMES)}")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()) or not (tensors["scale"] > 0).all():
        raise ModelError(f"{folder / TENSORS}: has values that are not finite, or a scale that is not above 0")
    wordings = tuple(map(str, manifest["wordings"]))
    return SceneClassifier(tensors, manifest["feature_digest"], wordings, manifest["threshold"], manifest["about"])


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path}: not an outcome classifier; `llmagent outcomes fit` makes one")
    if manifest.get("version") != VERSION:
        raise ModelError(f"{path}: version is {manifest.get('version')!r}; this program reads version {VERSION}")
    kinds: dict[str, Any] = {"sha256": str, "feature_digest": str, "wordings": list, "about": dict}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise ModelError(f"{path}: damaged: {key} is {manifest.get(key)!r:.60}")
    threshold = manifest.get("threshold", "missing")
    if not (threshold is None or (isinstance(threshold, float) and 0.0 <= threshold <= 1.0)):
        raise ModelError(f"{path}: damaged: threshold is {threshold!r:.60}; valid: null, or from 0 to 1")
    if not {"wished", "best_precision", "held_out"} <= set(manifest["about"]):
        raise ModelError(f"{path}: damaged: nothing is said of its precision")
    return manifest


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ModelError(f"{path}: larger than {_MAX_BYTES} bytes")
    return data


def _as_arrays(tensors: Mapping[str, Any]) -> dict[str, Floats]:
    return {name: np.array(value, np.float64) for name, value in tensors.items()}


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float64)  # without overflow


class Streak:
    """Counts scenes in a row that count as success, of one task: one scene alone may be a slip.

    Args:
        threshold: of the probability. needed: how many in a row.
    """

    def __init__(self, threshold: float, needed: int) -> None:
        self._threshold, self._needed = threshold, needed
        self._task, self._row = "", 0

    def take(self, task: str, probability: float) -> bool:
        """Takes the next scene of a task, by its id; whether there are enough in a row now."""
        if task != self._task:
            self._task, self._row = task, 0
        self._row = self._row + 1 if probability >= self._threshold else 0
        return self._row >= self._needed
