"""Loading the frozen base: any Hugging Face causal language model, or one line that says why not."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from llmagent_ros.errors import ModelError

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # tensors that are missing are an error of ours, of one line

_DAY = datetime(2024, 7, 26)  # of all chat prompts; Llama's own templates fall back on it


def load_base(name: str, device: torch.device, dtype: str) -> tuple[Any, Any]:
    """The frozen model and its tokenizer, which has a padding token.

    Raises:
        ModelError: it cannot be found or cannot compute, lacks tensors, or is no causal language model.
    """
    torch_dtype, source = _dtype(dtype, device), _source(name)
    try:
        tokenizer, model, report = _from_cache_or_hub(source, torch_dtype)
    except Exception as error:  # whatever a config.json that holds nonsense makes its model's code raise
        raise _cannot(name, "be loaded", error) from error
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if lacking:
        raise ModelError(f"model {name!r}: {len(lacking)} tensors missing or of a wrong shape, first {lacking[0]!r}")
    _check_tokenizer(name, tokenizer, model)
    model.requires_grad_(False)
    model = model.to(device).eval()
    try:
        _check_causal(name, model)
    except ModelError:
        raise
    except Exception as error:  # a configuration that loads and cannot compute, e.g. heads that do not fit the width
        raise _cannot(name, "compute", error) from error
    return model, tokenizer


def _from_cache_or_hub(source: str, dtype: torch.dtype) -> tuple[Any, Any, dict[str, Any]]:
    """What is on this machine comes first: a robot without a network starts at once, and by the same weights."""
    if Path(source).is_dir():
        return _read(source, dtype)
    try:
        return _read(snapshot_download(source, local_files_only=True), dtype)
    except OSError:  # not there, or not all of it
        return _read(source, dtype)


def _read(source: str, dtype: torch.dtype) -> tuple[Any, Any, dict[str, Any]]:
    """Tokenizer, model, and which tensors were missing or did not fit (they are told, not raised)."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=True,  # other formats can run code
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    return tokenizer, *loaded


def _source(name: str) -> str:
    """What to load a model from: a folder that is there, or a name for the hub.

    Raises:
        ModelError: it looks like a path, and no model is there.
    """
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return str(path)
    if path.exists():
        raise ModelError(f"model {name!r}: no config.json in that folder, so it is not a Hugging Face model")
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        raise ModelError(f"model {name!r}: there is no such folder; valid: a folder with a model, or a name")
    return name


def _cannot(name: str, what: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:300] or "no reason given"
    return ModelError(f"model {name!r} cannot {what}: {type(error).__name__}: {reason}")


def _check_tokenizer(name: str, tokenizer: Any, model: Any) -> None:
    """Raises ModelError unless there is a padding token, and every token has an embedding."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise ModelError(f"model {name!r}: its tokenizer has no padding, end or unknown token")
    highest, rows = max(tokenizer.get_vocab().values()), model.get_input_embeddings().num_embeddings
    if highest >= rows:
        raise ModelError(f"model {name!r}: its tokenizer has tokens up to {highest}, its vocabulary ends at {rows - 1}")


@torch.inference_mode()
def _check_causal(name: str, model: Any) -> None:
    """A bidirectional model may load under a causal head (BERT does): it keeps no key-value cache to go on from."""
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    output = model(input_ids=token, use_cache=True, logits_to_keep=1)
    if not getattr(getattr(output, "past_key_values", None), "layers", None):
        raise ModelError(f"model {name!r}: {type(model).__name__} is no causal language model with a key-value cache")


def attention_window(config: Any) -> float:
    """How many tokens back every layer of a model sees at least; infinite where all see everything."""
    values = (getattr(config, key, None) for key in ("sliding_window", "window_size", "attention_chunk_size"))
    return min((value for value in values if isinstance(value, int) and value > 0), default=math.inf)


def chat_template(tokenizer: Any, name: str) -> tuple[str, str]:
    """What stands before and after a user's message when the assistant is about to answer.

    Templates that say which day it is (those of Llama 3, SmolLM3) say the same one every day: else what was learned
    would belong to another prompt on the next.

    Raises:
        ModelError: the model has no chat template, or it does not leave a message as it is.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"model {name!r}: its tokenizer has no chat template; valid: chat false")
    mark = "the message"
    told = tokenizer.apply_chat_template(
        [{"role": "user", "content": mark}],
        chat_template=_on_one_day(tokenizer.get_chat_template()),
        tokenize=False,
        add_generation_prompt=True,
    )
    before, found, after = str(told).rpartition(mark)
    if not found:
        raise ModelError(f"model {name!r}: its chat template leaves out what a user says; valid: chat false")
    return before, after


def _on_one_day(template: str) -> str:
    """The template with a macro in place of the function by which it asks for the date of today.

    transformers makes text of a function that is passed to a template. The line that is put before it leaves nothing in
    what is rendered: the newline after a block is dropped.
    """
    codes = [f"%{flag}{letter}" for flag in ("", "-") for letter in "aAbBcdDeFHIjmMpRSTuUwxXyYZz"]
    replaced = "".join(f"|replace({code!r}, {_DAY.strftime(code)!r})" for code in codes)
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"


def device_named(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises:
        ModelError: there is no such kind of device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device {name!r}; valid: auto, cpu, cuda, cuda:0 …") from error


def _dtype(name: str, device: torch.device) -> torch.dtype:
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in choices:
        raise ModelError(f"dtype {name!r}; valid: auto, {', '.join(choices)}")
    return choices[name]
