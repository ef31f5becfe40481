"""The choice: what the language model prefers and what the critic prefers, in equal parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmagent_ros.errors import DivergenceError
from llmagent_ros.policy.language_model import LanguageModel
from llmagent_ros.types import Decision, RealArray


class Values(Protocol):
    """Action values (B, phrases) of features (B, feature_size): the mean of an ensemble, or one member's."""

    def __call__(self, features: Tensor, head: int | None = None) -> Tensor: ...


class TextPolicy:
    """pi(a|s) proportional to (pi_LM(a|s) pi_Q(a|s))^(1/2), with pi_Q = softmax(Q / beta).

    The logarithmic opinion pool (Genest & Zidek 1986) of both: of all distributions the one with the least
    KL(pi || pi_LM) + KL(pi || pi_Q). The critic acts from its first update on, while the adapter follows by
    distillation; once it has, pi is pi_Q, the policy that the critic evaluates. Without a critic, pi_LM alone.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.adapter = "initial"
        self._values: Values | None = None
        self.beta = 1.0  # temperature over values, in units of return
        self._disagreement = 0.0

    def swap(
        self,
        adapter: Mapping[str, Tensor] | None,
        values: Values | None,
        *,
        beta: float,
        name: str,
        disagreement: float = 0.0,
    ) -> None:
        """Acts by another adapter and critic from the next decision on.

        Args:
            adapter: PEFT tensors, None keeps the present ones. values: None acts without a critic.
            beta: temperature over values, in units of return.
            disagreement: how much one head of the critic counts against their mean where `decide` is given a head.

        Raises:
            ModelError: the adapter does not fit; the policy acts on as before.
        """
        if adapter is not None:
            self.model.load_adapter_state(adapter)
        self._values, self.beta, self.adapter = values, beta, name
        self._disagreement = disagreement

    def decide(
        self,
        scene: str,
        rng: np.random.Generator,
        *,
        lessons: Sequence[str] = (),
        temperature: float = 1.0,
        head: int | None = None,
        sayable: NDArray[np.bool_] | None = None,
    ) -> Decision:
        """Chooses an action phrase for a scene.

        Args:
            rng: one number is drawn from it. temperature: see `draw`.
            head: member of the critic's ensemble, modulo their number, that counts `disagreement` times against the
                mean of all. One member for a whole episode, another for the next, explores deeply (bootstrapped DQN,
                Osband et al. 2016): what they disagree on is tried out consistently. At 2, with an adapter that
                follows the mean, the policy is that of this member by itself. None: by the mean.
            sayable: which phrases can be chosen, (phrases,), at least one; None: all.

        Raises:
            DivergenceError: the model or the critic gives values that are not finite.
        """
        log_pi, values = self.distribution([scene], lessons, head)
        chances: RealArray = log_pi[0].numpy()
        if sayable is not None:
            chances = among(chances, sayable)
        choice, log_probability = draw(chances, temperature, rng.random())
        return Decision(
            action=self.model.phrases[choice],
            log_probability=log_probability,
            candidates=self.model.phrases,
            probabilities=np.exp(chances).astype(np.float32),
            values=values[0].numpy().astype(np.float32),
            adapter=self.adapter,
        )

    @torch.inference_mode()
    def distribution(
        self, scenes: Sequence[str], lessons: Sequence[str] = (), head: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """log pi(.|s) and Q(s, .), float64 on the CPU, each (B, phrases); values are 0 without a critic.

        Raises:
            DivergenceError: the model or the critic gives values that are not finite.
        """
        if self._values is None:
            logits = self.model.phrase_log_probs(scenes, lessons).double().cpu()
            values = torch.zeros_like(logits)
        else:
            told, features = self._seen(scenes, lessons)
            values = self._values(features).double().cpu()
            if head is not None and self._disagreement:
                values = values + self._disagreement * (self._values(features, head).double().cpu() - values)
            logits = (told.double().cpu() + (values / self.beta).log_softmax(-1)) / 2
        if not bool(logits.isfinite().all()):
            raise DivergenceError(f"adapter {self.adapter}: scores or values that are not finite")
        return logits.log_softmax(-1), values

    def _seen(self, scenes: Sequence[str], lessons: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What the language model prefers, and the features of the scenes."""
        if lessons:  # which the critic does not read
            return self.model.phrase_log_probs(scenes, lessons), self.model.features(scenes)
        return self.model.log_probs_and_features(scenes)


def among(log_pi: RealArray, sayable: NDArray[np.bool_]) -> RealArray:
    """log pi given that the phrase is one that can be said, both (phrases,)."""
    if sayable.all():
        return log_pi
    left = np.where(sayable, log_pi, -np.inf)
    return np.asarray(left - np.logaddexp.reduce(left))


def draw(log_pi: RealArray, temperature: float, uniform: float) -> tuple[int, float]:
    """One of pi's choices, by number, and the log-probability with which it was taken.

    Args:
        log_pi: (phrases,). temperature: it is drawn from pi^(1/temperature), normalised: 1 from pi itself; 0 takes the
            most probable. uniform: in [0, 1); the draw is the inverse of the cumulative distribution there.
    """
    if temperature == 0.0:
        return int(np.argmax(log_pi)), 0.0
    exact = np.asarray(log_pi, np.float64)  # in single precision the draw could come out beyond the last possible one
    weights = np.exp((exact - exact.max()) / temperature)
    edges = np.cumsum(weights)
    choice = min(int(np.searchsorted(edges, uniform * edges[-1], side="right")), len(edges) - 1)
    return choice, float(np.log(weights[choice] / edges[-1]))
