"""Tiny causal language models of several architectures, built and saved on the spot; and phrases to score."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llmagent_ros.policy.language_model import LanguageModel, LanguageModelConfig

torch.set_num_threads(1)

PHRASES = ("forward", "turn left", "turn right", "curve far to the left")  # ragged: 1 to several tokens
SCENES = (
    "go to the red ball. red ball left 40 at 1.2.",
    "stop.",
    "go to the blue pillar. blue pillar not seen. clear ahead 0.3 left 5.0 right unknown. did forward, turn left.",
)
KINDS = ("llama", "qwen2", "gpt_neox")


def tiny_tokenizer(end: str = "</s>") -> PreTrainedTokenizerFast:
    """A byte-level BPE over the words above; it has no padding token, as many published ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*SCENES, *(f" {p}" for p in PHRASES)] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)


def save_tiny_model(
    folder: Path, kind: str = "llama", width: int = 32, layers: int = 2, seed: int = 0, window: int | None = None
) -> Path:
    """Saves a random model with its tokenizer, in which different texts give clearly different scores.

    window: tokens that each one of a mistral sees.
    """
    tokenizer = tiny_tokenizer("<|endoftext|>" if kind == "qwen2" else "</s>")
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    torch.manual_seed(seed)
    model: torch.nn.Module
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=True))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**common, num_key_value_heads=2, tie_word_embeddings=False))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**common, num_key_value_heads=2, sliding_window=window))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**common, tie_word_embeddings=False))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_language_model(folder: Path, phrases: tuple[str, ...] = PHRASES, **config: object) -> LanguageModel:
    """The model of a folder on the CPU, saved there first where it is not yet."""
    if not (folder / "config.json").is_file():
        save_tiny_model(folder)
    values: dict[str, object] = {"model": str(folder), "device": "cpu", "rank": 4, "alpha": 8, **config}
    return LanguageModel(LanguageModelConfig(**values), phrases)  # type: ignore[arg-type]


def random_adapter(model: LanguageModel, seed: int = 0, scale: float = 0.3) -> dict[str, torch.Tensor]:
    """An adapter that changes every score."""
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(t.shape, generator=generator) for name, t in model.adapter_state().items()}
