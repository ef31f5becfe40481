"""A frozen causal language model with one LoRA adapter: features of scenes and scores of action phrases."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from llmagent_ros.errors import ModelError
from llmagent_ros.policy.base_model import chat_template, device_named, load_base
from llmagent_ros.policy.features import PROJECTION, load_projection, pooling_of, shared_ending
from llmagent_ros.policy.inference_copies import MergedCopy, sharing_copy, without_last_layer
from llmagent_ros.policy.phrase_tokens import PhraseTokens
from llmagent_ros.policy.prompt import PromptFormat, as_text
from llmagent_ros.policy.scoring import PhraseScorer, Reading, forward, keys_and_values

SHIPPED_BASE = Path(__file__).resolve().parent.parent / "models" / "base"


def shipped_base_digest() -> str:
    """Of the files of the base that ships, without loading it: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(SHIPPED_BASE.iterdir()):
        if path.suffix in {".json", ".safetensors"}:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
ADAPTER = "acting"
# PEFT asks every model for it; nothing that a user of ours could change
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


@dataclass(config=ConfigDict(extra="forbid"), frozen=True)
class LanguageModelConfig:
    """Which base, on what, and the shape of its adapter.

    Attributes:
        model: Hugging Face name or path of a causal language model; empty is the base that ships.
        device: "auto" takes a GPU when there is one. dtype: "auto" is float32 on a CPU, bfloat16 on a GPU.
        chat: the prompt is a user's message in the model's own chat template, and the phrase is the answer; for models
            that were tuned to follow instructions.
        score: a phrase's score is the "mean" of its tokens' log-probabilities, or their "sum", which favours short
            phrases and is there to be measured against.
        full: a copy of the whole model is trained in place of an adapter, and bundles hold all of it; only to measure
            what an adapter is worth.
        rank, alpha: of LoRA (Hu et al. 2022); alpha 0 is twice the rank.
        target_modules: names of linear layers, or "all-linear".
        max_tokens: longer prompts lose their beginning.
        seed: of the adapter's A; B starts at zero, so a new adapter acts as the base.
        train_a: A learns as well. Without, it stays the same for all adapters of a base, rank and seed (LoRA-FA, Zhang
            et al. 2023): they learn as well, and the mean of their B is the mean of what they add to the weights.
    """

    model: str = ""
    device: str = "auto"
    dtype: str = "auto"
    chat: bool = False
    score: Literal["mean", "sum"] = "mean"
    full: bool = False
    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=0, ge=0)
    target_modules: tuple[str, ...] | str = "all-linear"
    max_tokens: int = Field(default=512, gt=0)
    seed: int = 0
    train_a: bool = False


class LanguageModel:
    """See the module. Batches are lists of scenes of any lengths; padding never changes a result.

    Raises:
        ModelError: the model cannot be found, lacks tensors, or is no causal language model.
    """

    def __init__(self, config: LanguageModelConfig, phrases: Sequence[str], form: PromptFormat | None = None) -> None:
        self.config = config
        self.form = form or PromptFormat(separator="" if config.chat else " ")
        self.phrases = tuple(phrases)
        self.device = device_named(config.device)
        name = config.model or str(SHIPPED_BASE)
        base, self.tokenizer = load_base(name, self.device, config.dtype)
        self.base_digest = model_digest(base)
        width = int(base.config.hidden_size)
        self._template = chat_template(self.tokenizer, name) if config.chat else None
        added = self.tokenizer.added_tokens_decoder.values()
        self._special = [token.content for token in added if token.special and len(token.content) > 1]
        prompts = self.encode([self.form.prompt(scene) for scene in ("ahead.", "7 8")])
        self._cue = prompts[0][-min(max(1, shared_ending(prompts)), config.max_tokens) :]
        self._pooling = pooling_of(len(self._cue), width, int(base.config.num_hidden_layers))
        self._projection = load_projection(Path(name), self.device)
        pooled = self._pooling.parts * width
        if self._projection is not None and (fits := len(self._projection.mean)) != pooled:
            raise ModelError(f"{name}: {PROJECTION} is for {fits} numbers, not {pooled}: make it anew")
        self.feature_size = pooled if self._projection is None else self._projection.size
        self.feature_digest = hashlib.sha256(
            f"{self._projection} {self._pooling} {self.base_digest} {self.form} {self._template} {config.max_tokens} "
            f"{self._cue}".encode()
        ).hexdigest()
        targets = config.target_modules
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha or 2 * config.rank,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        )
        self._plain = sharing_copy(base)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            try:
                self.model: PeftModel = get_peft_model(base, lora, adapter_name=ADAPTER)
            except ValueError as error:
                linear = {n.rsplit(".", 1)[-1] for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
                raise ModelError(f"target_modules {targets!r}: {error}; linear layers: {sorted(linear)}") from error
        self.model.eval()
        if not config.train_a:
            for name, parameter in self.model.named_parameters():
                if f".lora_A.{ADAPTER}." in name:
                    parameter.requires_grad_(False)
        self._tuned = copy.deepcopy(self._plain).requires_grad_() if config.full else None
        self._adapter = dict(self._tuned.named_parameters()) if self._tuned else self._adapter_by_file_name()
        self._base: Any = self.model.base_model.model
        self._merged = MergedCopy(self._plain, self.model, ADAPTER)
        self._scorer = PhraseScorer(self._tokenize_phrases())
        try:
            reading = self.read(["nothing seen. did nothing.", "clear."])
            self._scorer.choose_way(self._plain, reading, config.max_tokens)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
        self._below = self._below_last_layer()

    @property
    def cue_tokens(self) -> int:
        """How many tokens of a prompt's end the adapter acts on."""
        return len(self._cue)

    # --- what it computes -------------------------------------------------------------------------

    @torch.inference_mode()
    def features(self, scenes: Sequence[str]) -> Tensor:
        """What the critic sees of each scene, float32, (B, feature_size); the adapter is disabled for it.

        Statistics over all tokens, and the hidden states of the cue's last ones, where the shipped base sums a scene up
        (see `Pooling` and pretraining.py). A base with a `Projection` gives its principal components instead. Lessons
        are left out, so that a scene has the same features whatever was retrieved.
        """
        ids, mask = self.tokenize([self.form.prompt(scene) for scene in scenes])
        return self._pooled(self._hidden(self._below, ids, mask), mask)

    def _pooled(self, hidden: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        features = self._pooling(hidden, mask)
        return self._projection(features) if self._projection is not None else features

    def phrase_log_probs(
        self, scenes: Sequence[str], lessons: Sequence[str] = (), *, adapter: bool = True
    ) -> Tensor:
        """log pi(phrase | lessons, scene) over the closed vocabulary, float32, (B, phrases).

        A phrase's score is (by default) the mean log-probability of its tokens after the prompt, so that long phrases
        are not at a disadvantage; the scores are normalised over the vocabulary. The base reads the prompt up to the
        cue; the adapter acts from there on (activated LoRA, Greenewald et al. 2025), so that it changes what is done
        about a scene and not how texts are read. Differentiable with respect to the adapter where gradients are
        enabled; else it is merged into the weights.
        """
        return self.phrase_log_probs_of(self.read(scenes, lessons), adapter=adapter)

    def phrase_log_probs_of(self, reading: Reading, *, adapter: bool = True) -> Tensor:
        """The same of prompts that were read before: they need not be read again for another adapter."""
        return self._scorer(self._adapted() if adapter else self._plain, reading).log_softmax(-1)

    @torch.no_grad()
    def read(self, scenes: Sequence[str], lessons: Sequence[str] = ()) -> Reading:
        """What the base makes of prompts up to the cue. With `full` nothing is read yet: all of it will be trained."""
        ids, mask = self.tokenize([self.form.prompt(scene, lessons) for scene in scenes])
        before = ids.shape[1] - len(self._cue)
        if self._tuned is not None or before == 0:
            return Reading(ids, mask)
        out = forward(self._plain, ids[:, :before], mask[:, :before], use_cache=True, logits_to_keep=1)
        return Reading(ids, mask, keys_and_values(out, before))

    @torch.inference_mode()
    def log_probs_and_features(self, scenes: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`phrase_log_probs` and `features` of the same scenes, without lessons: the base reads them once for both."""
        ids, mask = self.tokenize([self.form.prompt(scene) for scene in scenes])
        out = forward(self._plain, ids, mask, use_cache=True, output_hidden_states=True, logits_to_keep=1)
        before = 0 if self._tuned is not None else ids.shape[1] - len(self._cue)
        reading = Reading(ids, mask, keys_and_values(out, before) if before else ())
        return self.phrase_log_probs_of(reading), self._pooled(tuple(out.hidden_states[:-1]), mask)

    def for_inference(self, *, adapter: bool) -> Any:
        """The Hugging Face model, with the adapter as it is now merged into it or without; not to be changed."""
        with torch.no_grad():
            return self._adapted() if adapter else self._plain

    # --- the adapter --------------------------------------------------------------------------------

    def adapter_parameters(self) -> list[torch.nn.Parameter]:
        """Those of the adapter's parameters that train; no other does."""
        return [parameter for parameter in self._adapter.values() if parameter.requires_grad]

    def adapter_state(self) -> dict[str, Tensor]:
        """The adapter's tensors under PEFT's file names, on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._adapter.items()}

    def adapter_config(self) -> dict[str, Any]:
        """What PEFT writes to adapter_config.json."""
        values: dict[str, Any] = self.model.peft_config[ADAPTER].to_dict()
        if self._tuned is None:
            values["alora_invocation_tokens"] = list(self._cue)  # from which on PEFT, too, lets it act
        return {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}

    def check_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises ModelError unless an adapter's names and shapes fit and its values are finite."""
        wrong = sorted(set(self._adapter) ^ set(state)) or sorted(
            name for name, tensor in state.items() if tensor.shape != self._adapter[name].shape
        )
        if wrong:
            raise ModelError(f"adapter does not fit the model: {len(wrong)} tensors differ, first {wrong[0]!r}")
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            raise ModelError("adapter holds values that are not finite")

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copies an adapter in, in place: parameters stay the same objects, so optimisers stay valid.

        Raises:
            ModelError: as `check_adapter_state`; nothing was changed.
        """
        self.check_adapter_state(state)
        with torch.no_grad():
            for name, parameter in self._adapter.items():
                parameter.copy_(state[name])

    def _adapter_by_file_name(self) -> dict[str, torch.nn.Parameter]:
        """The adapter's parameters by the names that PEFT gives them in files; asking PEFT at each swap is slow."""
        mark = f".{ADAPTER}."
        found = {n.replace(mark, "."): p for n, p in self.model.named_parameters() if mark in n}
        if set(found) != set(get_peft_model_state_dict(self.model, adapter_name=ADAPTER, save_embedding_layers=False)):
            raise ModelError(f"target_modules {self.config.target_modules!r}: only linear layers can be adapted")
        return found

    def _adapted(self) -> Any:
        """The model with what was trained of it: to train where gradients are enabled, else to compute with."""
        if self._tuned is not None:
            return self._tuned
        return self._base if torch.is_grad_enabled() else self._merged.refresh()

    def _hidden(self, model: Any, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Hidden states of the tokens and of every layer but the last, each (B, T, width)."""
        out = forward(model, ids, mask, output_hidden_states=True, logits_to_keep=1, use_cache=False)
        return tuple(out.hidden_states[:-1])

    @torch.inference_mode()
    def _below_last_layer(self) -> Any:
        """What computes features: without the last layer, which they do not need, where that gives the same."""
        below = without_last_layer(self._plain)
        if below is None:
            return self._plain
        ids, mask = self.tokenize([self.form.prompt("nothing seen. did nothing."), self.form.prompt("clear.")])
        try:
            pairs = zip(self._hidden(below, ids, mask), self._hidden(self._plain, ids, mask), strict=True)
            same = all(torch.equal(one, other) for one, other in pairs)
        except (TypeError, ValueError, RuntimeError, IndexError):  # a kind of layer that gives something else
            return self._plain
        return below if same else self._plain

    # --- inside ---------------------------------------------------------------------------------------

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Tokens of prompts, as a user's messages where the model is talked to; no word becomes a special token."""
        texts = [as_text(text, self._special) for text in prompts]
        if self._template is not None:
            before, after = self._template
            texts = [f"{before}{text}{after}" for text in texts]
        encoded: list[list[int]] = self.tokenizer(texts, add_special_tokens=self._template is None).input_ids
        return encoded

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Left-padded ids and mask, (B, T): the last position is every prompt's last token."""
        encoded = self.encode(prompts)
        encoded = [tokens[-self.config.max_tokens :] for tokens in encoded]
        length = max(map(len, encoded))
        pad = int(self.tokenizer.pad_token_id)
        ids = torch.tensor([[pad] * (length - len(t)) + t for t in encoded], device=self.device)
        mask = torch.tensor([[0] * (length - len(t)) + [1] * len(t) for t in encoded], device=self.device)
        return ids, mask

    def _tokenize_phrases(self) -> PhraseTokens:
        encoded = [self.tokenizer(self.form.phrase(p), add_special_tokens=False).input_ids for p in self.phrases]
        mean = self.config.score == "mean"
        return PhraseTokens.of(encoded, int(self.tokenizer.pad_token_id), self.device, mean=mean)

    def describe(self) -> dict[str, Any]:
        """Name, size, adapter and how phrases are scored (`phrase_log_probs`), for logs."""
        total = sum(p.numel() for p in self.model.parameters())
        trained = sum(p.numel() for p in self.adapter_parameters())
        name = self.config.model or "shipped base"
        return {
            "model": name,
            "base": self.base_digest,
            "parameters": total,
            "adapter_parameters": trained,
            "rank": self.config.rank,
            "scoring": self._scorer.way,
        }


def model_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names, shapes and values of all parameters: what an adapter belongs to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
