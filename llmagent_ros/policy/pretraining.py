"""Making a small base model from text logs.

The model learns "scene, action -> next scene" as plain next-token prediction, and in `recall_share` of the sequences
to say the scene again, both without the instruction that the scene begins with: what it asks for shows in the parts
that follow (objects that it names come first), and its wording should not. In `noise_share` of them words of the
instruction that occur nowhere else in the scene are made-up ones, so that wordings nobody thought of are read too.

In `gist_share` of the sequences the text after the prompt may look at the prompt's cue only, not at the scene before it
(gist tokens, Mu, Li & Goodman 2023), so that the hidden states of the cue must carry what the scene says: they are the
features of the critic. No action is better than another in the logs, so nothing about solving a task is learned here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmagent_ros.errors import ModelError
from llmagent_ros.optimiser_state import load_optimiser, optimiser_tensors, part
from llmagent_ros.policy.logs import LoggedStep
from llmagent_ros.policy.prompt import PromptFormat

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
_PIECES = r"(?: ?\p{L}+){1,2} -?\d+\.\d| ?\p{L}+ -?\d+| ?-?\d+\.\d| ?-?\d+| ?\p{L}+| ?[^\s\p{L}\d]|\s+"
CHECKPOINT_STEPS = 250


@dataclass(frozen=True)
class PretrainConfig:
    """Sizes and schedule; steps are those of the optimiser, batch_size is in sequences."""

    layers: int = 3
    width: int = 128
    heads: int = 8
    vocabulary: int = 3072
    max_positions: int = 1024
    batch_size: int = 32
    steps: int = 5000
    learning_rate: float = 2e-3
    warmup: int = 100
    gist_share: float = 0.9
    recall_share: float = 0.5
    noise_share: float = 0.3
    seed: int = 0


RECALL = " say again."
_LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def corpus(steps: Sequence[LoggedStep], form: PromptFormat) -> list[str]:
    """Texts that hold every word a sequence may hold, for the tokenizer."""
    return [f"{form.prompt(s.scene)}{form.phrase(s.action)}. then{RECALL} {form.lessons(['a'])}" for s in steps]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which a number and one or two words before it may become one token, and any text has tokens.

    Superwords (SuperBPE, Liu et al. 2025) say a part of a scene at once, "left front 1.3": fewer tokens are read,
    and what a number is of need not be put together by attention. Rare numbers are tokens of their own.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    numbers = [f" {n / 10:.1f}" for n in range(-99, 100)] + [f" {n}" for n in (*range(10), *range(10, 190, 10))]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *("".join(numbers) for _ in range(500))], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left"
    )


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of the configured size."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=3 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


@dataclass(frozen=True)
class _Sequence:
    tokens: list[int]
    gist: tuple[int, int]  # where the cue begins and ends


class _Encoder:
    """Turns logged steps into token sequences: prompt, phrase, next scene; or prompt, the same scene again.

    The scenes after the prompt lack their instruction.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, form: PromptFormat) -> None:
        self._tokenizer = tokenizer
        self._form = form
        self._cue = len(tokenizer(form.cue, add_special_tokens=False).input_ids)

    def encode(self, step: LoggedStep, *, recall: bool, noise: np.random.Generator | None = None) -> _Sequence:
        """noise: makes words of the instruction up."""
        scene = step.scene if noise is None else _with_noise(step, noise)
        prompt = self._tokenizer(self._form.prompt(scene)).input_ids
        told = without_task(step.scene if recall else step.next_scene, step.task)
        rest = f"{RECALL} {told}" if recall else self._form.outcome(step.action, told)
        after = self._tokenizer(rest, add_special_tokens=False).input_ids
        gist = (len(prompt) - self._cue, len(prompt))
        return _Sequence([*prompt, *after, self._tokenizer.eos_token_id], gist)


def without_task(scene: str, task: str) -> str:
    """A scene without the instruction that it begins with."""
    return scene.removeprefix(f"{task}. ") if task else scene


def _with_noise(step: LoggedStep, rng: np.random.Generator) -> str:
    """The scene; words of its instruction that occur nowhere else in it are replaced by 0 to 2 made-up ones each."""
    rest = without_task(step.scene, step.task)
    if rest == step.scene:
        return rest
    known = set(rest.replace(".", " ").split())
    words = [
        word
        for given in step.task.split()
        for word in ([given] if given in known else [_made_up(rng) for _ in range(rng.integers(3))])
    ]
    return f"{' '.join(words)}. {rest}" if words else rest


def _made_up(rng: np.random.Generator) -> str:
    return "".join(rng.choice(_LETTERS, size=rng.integers(2, 9)))


def _batch(
    sequences: Sequence[_Sequence], gist: Sequence[bool], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-padded ids (B, T), additive mask (B, 1, T, T) with the gist rule, labels (B, T) with -100 on padding."""
    length = max(len(s.tokens) for s in sequences)
    ids = torch.full((len(sequences), length), pad)
    labels = torch.full((len(sequences), length), -100)
    allowed = torch.tril(torch.ones(length, length, dtype=torch.bool)).repeat(len(sequences), 1, 1)
    for row, (sequence, masked) in enumerate(zip(sequences, gist, strict=True)):
        size = len(sequence.tokens)
        ids[row, :size] = torch.tensor(sequence.tokens)
        labels[row, :size] = ids[row, :size]
        if masked:
            allowed[row, sequence.gist[1] :, : sequence.gist[0]] = False
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return ids, mask[:, None], labels


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    form: PromptFormat,
    steps: Sequence[LoggedStep],
    config: PretrainConfig,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> None:
    """Trains in place with AdamW, a warm-up and a cosine schedule. What a step sees depends on the seed and its number.

    Args:
        checkpoint: file that is written now and then; training goes on from it, and ends as if never interrupted.
        progress: called with (step, loss, seconds so far).

    Raises:
        ModelError: the checkpoint cannot be read, or is that of another training.
    """
    encoder = _Encoder(tokenizer, form)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    ends = np.cumsum([len(step.next_scene) for step in steps])  # who says more is drawn as much more often
    start = time.monotonic()
    model.train()
    done = _resume(checkpoint, model, optimiser, config)
    while done < config.steps:
        rng = np.random.default_rng([config.seed, done])
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(done, config)
        picked = np.searchsorted(ends, rng.random(config.batch_size) * ends[-1], side="right")
        recall = rng.random(config.batch_size) < config.recall_share
        noise = [rng if some else None for some in rng.random(config.batch_size) < config.noise_share]
        chosen = [
            encoder.encode(steps[i], recall=bool(r), noise=n) for i, r, n in zip(picked, recall, noise, strict=True)
        ]
        gist = (rng.random(config.batch_size) < config.gist_share).tolist()
        ids, mask, labels = _batch(chosen, gist, int(tokenizer.pad_token_id))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        done += 1
        if checkpoint is not None and done % CHECKPOINT_STEPS == 0 and done < config.steps:
            _save_training(checkpoint, model, optimiser, config, done)
        if progress is not None:
            progress(done, float(loss.detach()), time.monotonic() - start)
    model.eval()


def _schedule(step: int, config: PretrainConfig) -> float:
    """Share of the learning rate at a step: linear warm-up, cosine to 2 %."""
    return min(1.0, (step + 1) / config.warmup) * (0.51 + 0.49 * math.cos(math.pi * step / config.steps))


def _save_training(
    path: Path, model: LlamaForCausalLM, optimiser: torch.optim.Optimizer, config: PretrainConfig, done: int
) -> None:
    tensors = {f"model/{name}": p.detach().clone() for name, p in model.named_parameters()}
    tensors |= optimiser_tensors("optimiser", optimiser)
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, partial, metadata={"step": str(done), "config": str(config)})
    partial.replace(path)


def _resume(
    path: Path | None, model: LlamaForCausalLM, optimiser: torch.optim.Optimizer, config: PretrainConfig
) -> int:
    """Puts a checkpoint back; returns the steps done."""
    if path is None or not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; remove it to start anew") from error
    if facts.get("config") != str(config):
        raise ModelError(f"{path}: of a training with other settings ({facts.get('config')}); remove it to start anew")
    model.load_state_dict(part(tensors, "model"), strict=False)  # the output layer is tied to the embedding
    load_optimiser(part(tensors, "optimiser"), optimiser)
    return int(facts["step"])


@torch.inference_mode()
def perplexity(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    form: PromptFormat,
    steps: Sequence[LoggedStep],
    *,
    gist: bool = False,
) -> float:
    """exp of the mean token loss over whole sequences "scene, action, next scene"; with `gist`, under the gist mask."""
    encoder = _Encoder(tokenizer, form)
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(steps), 32):
        chosen = [encoder.encode(step, recall=False) for step in steps[start : start + 32]]
        ids, mask, labels = _batch(chosen, [gist] * len(chosen), int(tokenizer.pad_token_id))
        tokens = int((labels[:, 1:] != -100).sum())
        total += float(model(input_ids=ids, attention_mask=mask, labels=labels).loss) * tokens
        count += tokens
    return math.exp(total / count)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Safetensors and tokenizer files, loadable with `AutoModelForCausalLM` and `AutoTokenizer`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
