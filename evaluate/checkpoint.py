"""A causal language model and its tokenizer, loaded for scoring; what tells two models apart."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from curate.errors import CurateError
from curate.rawfooter import first_line
from curate.tokenscores import Head, head_of, score

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

WEIGHTS = ("model*.safetensors", "adapter_model.safetensors", "pytorch_model*.bin")
"""Of a folder; what a trainer keeps beside them (state, arguments) is no part of a model."""

FINGERPRINT = (
    "SHA-256 of the configuration, and of the names, sizes, headers and first 4 KiB of every "
    "tensor of the weights' safetensors files (of all bytes of other weights)"
)
TENSOR_BYTES = 4096

PROBED = 16
"""Tokens on which the head is held against the model's own logits."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to score: on its device, its weights of type `dtype`."""

    name: str
    model: Any
    head: Head
    device: torch.device
    dtype: str


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a model's folder or name. Raises CurateError where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise CurateError(f"{model}: cannot load a tokenizer: {first_line(error)}") from None
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        # Of a folder without one, transformers makes one that knows no word.
        raise CurateError(f"{model}: expected a tokenizer, found none that knows any text")
    return tokenizer


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of a fast tokenizer, apart from its chat template, and from cutting and padding."""
    told = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def configuration(model: str) -> Any:
    """The text configuration of a model. Raises CurateError where there is none."""
    try:
        return AutoConfig.from_pretrained(_base_of(model)).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise CurateError(
            f"{model}: expected a model's folder or a name on the Hub: {first_line(error)}"
        ) from None


def _base_of(model: str) -> str:
    """The model that an adapter's folder stands on, or the model itself."""
    adapter = Path(model) / "adapter_config.json"
    if not adapter.is_file():
        return model
    return str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])


def fingerprint(model: str) -> dict[str, str]:
    """
    What tells a model from others: of a folder `sha256` and `of` what, of the Hub its revision.

    Two checkpoints of one run differ in it, a copy in another place does not.
    """
    if not Path(model).is_dir():
        found = cached_file(model, "config.json")  # raises where there is none
        return {"revision": Path(str(found)).parent.name}
    digest = hashlib.sha256()
    for piece in _pieces(Path(model)):
        digest.update(hashlib.sha256(piece).digest())
    return {"sha256": digest.hexdigest(), "of": FINGERPRINT}


def _pieces(folder: Path) -> Iterator[bytes]:
    for name in ("config.json", "adapter_config.json"):
        if (folder / name).is_file():
            yield name.encode()
            yield (folder / name).read_bytes()
    if (base := _base_of(str(folder))) != str(folder):
        yield json.dumps(fingerprint(base)).encode()
    weights = {path for pattern in WEIGHTS for path in folder.glob(pattern)}
    if not weights:
        raise CurateError(
            f"{folder}: expected a model's weights ({', '.join(WEIGHTS)}), found none"
        )
    for path in sorted(weights):
        yield f"{path.name} {path.stat().st_size}".encode()
        yield from _tensors(path) if path.suffix == ".safetensors" else [_whole(path)]


def _whole(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _tensors(path: Path) -> Iterator[bytes]:
    """The header, which ends where the tensors begin, and the beginning of each."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.fstat(file.fileno()).st_size:
            raise CurateError(f"{path}: expected a safetensors file, found something else")
        header = file.read(length)
        yield header
        for begin, end in _spans(path, header):
            file.seek(8 + length + begin)
            yield file.read(min(TENSOR_BYTES, end - begin))


def _spans(path: Path, header: bytes) -> list[tuple[int, int]]:
    """The bytes of each tensor, counted from the end of the header."""
    try:
        tensors = {name: one for name, one in json.loads(header).items() if name != "__metadata__"}
        return [(begin, end) for begin, end in (one["data_offsets"] for one in tensors.values())]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CurateError(f"{path}: expected a safetensors file, found something else") from None


def device_of(asked: str | None) -> torch.device:
    """The device asked for, else a CUDA device where there is one, else the processor."""
    try:
        device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1, device=device).item()  # `meta` holds nothing that could be read back
    except (RuntimeError, AssertionError) as error:
        raise CurateError(f"--device: cannot use {asked}: {first_line(error)}") from None
    return device


def dtype_of(asked: str | None, device: torch.device) -> str:
    """The type asked for, else bfloat16 where a CUDA device has it, else float32."""
    if asked is not None:
        return asked
    fits = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if fits else "float32"


def load(model: str, dtype: str, device: torch.device) -> Loaded:
    """
    Load a causal language model whose logits are what its head makes of its last hidden states.

    Raises CurateError where it cannot be loaded, or does to its logits what `curate.tokenscores`
    does not know.
    """
    network = load_network(model, dtype, device)
    loaded = Loaded(model, network, head_of(network), device, dtype)
    _check_head(loaded)
    return loaded


def load_network(model: str, dtype: str, device: torch.device) -> Any:
    """
    Load a causal language model, whole and on its device, for inference.

    Raises CurateError where it cannot be loaded, or lacks weights that would then be random.
    """
    transformers_logging.disable_progress_bar()
    try:
        loading: Any = AutoModelForCausalLM.from_pretrained  # its types know of no such pair
        network, told = loading(model, dtype=DTYPES[dtype], output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CurateError(f"{model}: cannot load a model: {first_line(error)}") from None
    missing = sorted(told["missing_keys"])
    if missing:
        raise CurateError(
            f"{model}: expected all weights, found none of {missing[0]} ({len(missing):,} missing)"
        )
    return moved(model, network.eval(), device)


def moved(model: str, network: Any, device: torch.device) -> Any:
    """The network on a device. Raises CurateError where it has no room, or cannot take it."""
    try:
        return network.to(device)
    except RuntimeError as error:  # a lack of memory, too
        raise CurateError(f"{model}: cannot be put on {device}: {first_line(error)}") from None


def hidden_states(loaded: Loaded, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The last hidden states [batch, length, hidden] of token ids; no logits are made."""
    network = loaded.model
    out = network.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return out.last_hidden_state  # type: ignore[no-any-return]


@torch.inference_mode()
def _check_head(loaded: Loaded) -> None:
    """Raise CurateError where the model's own logits are others than those of its head."""
    head = loaded.head
    size = min(PROBED, len(head.weight) - 1)
    ids = torch.arange(size + 1, device=loaded.device)[None]
    hidden = hidden_states(loaded, ids[:, :-1], None)[0]
    scale, cap = head.logit_scale, head.softcap
    found, *_ = score(hidden, head.weight, head.bias, ids[0, 1:], logit_scale=scale, softcap=cap)
    logits = loaded.model(input_ids=ids[:, :-1], use_cache=False).logits[0].float()
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    # A logit of 20 in bfloat16 has steps of 0.1, and a kernel of another shape may round otherwise.
    allowed = 1e-3 if loaded.dtype == "float32" else 0.1
    if (found - expected).abs().mean() > allowed:  # what is no number is told with its row
        name = type(loaded.model).__name__
        raise CurateError(
            f"{loaded.name}: expected logits that its output embeddings make of its last hidden "
            f"states, but {name} does something else to them"
        )
