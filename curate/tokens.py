"""
How many tokens a trace has: exactly, given a tokenizer, or as an estimate from its bytes.

Encoding takes 2 to 3 MB/s on a core and some hundred bytes of memory for each byte of a text. So
texts are cut into pieces where `curate.tokencuts` shows that it changes nothing, equal pieces are
counted once, and a trace has the sum of its pieces. Where nothing is shown of a tokenizer, texts
are counted whole, which is as exact and has no bound but MAX_PIECE.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.buffers import text_buffers
from curate.errors import CurateError, TooLargeError
from curate.rawfooter import first_line
from curate.tokencuts import cut_table

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES_PER_TOKEN = 3.45
"""Of long chains of thought, mostly about mathematics; see `estimate_tokens`."""

WINDOW = 1 << 20
"""Bytes that are cut at once; ten times as much is held."""

BATCH = 1 << 16
"""Bytes that are encoded at once, unless a single piece is longer."""

MAX_PIECE = 4 << 20
"""Bytes of the longest piece that is encoded, which takes up to half a gigabyte."""

KNOWN_PIECES, KNOWN_BYTES = 1 << 17, 64
"""Pieces whose counts are remembered, and the longest of them: 25 MB in all."""

QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What Qwen2's tokenizer splits by, where its files do not say."""


def estimate_tokens(num_bytes: np.ndarray, bytes_per_token: float = BYTES_PER_TOKEN) -> np.ndarray:
    """
    Tokens of texts of so many bytes, int64[n], where there is no tokenizer to count them.

    On 3,530 real traces of eleven models, 20 MB, by the vocabularies of Qwen2 and of GPT-2: off by
    23% and 20% for the median trace, by 53% and 46% for one in twenty, and by 1% for all of them
    together. One teacher wrote 71% of those bytes: of the totals by teacher, which have 2.3 to 3.7
    bytes per token, the worst is a third short. The number of steps helps some teachers and harms
    others.
    """
    return np.rint(np.asarray(num_bytes) / bytes_per_token).astype(np.int64)


def load_tokenizer(name: str) -> "TokenCounter":
    """
    A tokenizer ready to count: a folder, a `tokenizer.json`, or a name on the Hub.

    A folder has `tokenizer.json`; or `vocab.json`, `merges.txt` and a `tokenizer_config.json` that
    calls it a Qwen2Tokenizer. Raises CurateError where it is neither, or cannot be had.

    TOKENIZERS_PARALLELISM, unless it is set, becomes `false` for this process: the library then
    starts no threads beside ours, and has no warning about forks.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        raise CurateError(
            f"--tokenizer {name}: expected the library tokenizers, which is not installed; "
            "`pip install tokenizers` does"
        ) from None
    try:
        tokenizer = _from_path(Path(name)) if _is_path(name) else _from_hub(name)
    except CurateError:
        raise
    except Exception as error:  # the library has no narrower one
        said = f"expected a tokenizer that can be loaded: {first_line(error)}"
        raise CurateError(f"--tokenizer {name}: {said}") from error
    return TokenCounter(name, tokenizer)


def _is_path(name: str) -> bool:
    """Whether a name is of a file or folder; names on the Hub have at most one slash."""
    told = name.startswith((".", "~", os.sep)) or name.endswith(".json") or name.count("/") > 1
    return told or Path(name).exists()


def _from_hub(name: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_pretrained(name)
    except Exception as error:
        raise CurateError(
            f"--tokenizer {name}: expected a folder, a tokenizer.json, or a name on the Hub; "
            f"there is no such path, and the Hub did not give it: {first_line(error)}"
        ) from error


def _from_path(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return Tokenizer.from_file(str(file))
    config = path / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    vocab, merges = path / "vocab.json", path / "merges.txt"
    is_qwen2 = told.get("tokenizer_class") in ("Qwen2Tokenizer", "Qwen2TokenizerFast")
    if is_qwen2 and vocab.is_file() and merges.is_file():
        return _qwen2(str(vocab), str(merges), told.get("added_tokens_decoder") or {})
    raise CurateError(
        f"--tokenizer {path}: expected a tokenizer.json, or a folder with one or with vocab.json, "
        "merges.txt and a tokenizer_config.json of a Qwen2Tokenizer, found none of them"
    )


def _qwen2(vocab: str, merges: str, added: dict[str, dict[str, Any]]) -> "Tokenizer":
    """Qwen2's own tokenizer, from its parts."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE.from_file(vocab, merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2_REGEX), "isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    tokenizer.add_tokens([AddedToken(**added[number]) for number in sorted(added, key=int)])
    return tokenizer


class TokenCounter:
    """
    A tokenizer that counts, from any number of threads.

    `digest` is the SHA-256 of all that `tokenizer` is made of, in hexadecimal; `cuts` says whether
    texts are counted in pieces; otherwise they are counted whole.
    """

    def __init__(self, name: str, tokenizer: "Tokenizer") -> None:
        if getattr(tokenizer.model, "dropout", None):
            raise CurateError(
                f"--tokenizer {name}: expected a tokenizer that always gives the same tokens, "
                f"found dropout {tokenizer.model.dropout}"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.name = name
        self.digest = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
        table = cut_table(tokenizer)
        self.cuts = bool(table.any())
        self.tokenizer, self._table = tokenizer, table.ravel()
        self._known: dict[bytes, int] = {}
        self._lock = Lock()

    def count(self, traces: pa.Array) -> np.ndarray:
        """
        Tokens of each trace of a string or binary array, int64[len(traces)]; of a null, 0.

        None are added (no beginning or end of sequence), and an added token that stands in a text
        is one, both as `encode(text, add_special_tokens=False)` has it. Bytes that are not UTF-8
        count as the U+FFFD that Python decodes them to. Raises TooLargeError where more than
        MAX_PIECE bytes would have to be encoded at once, CurateError where the library gives up.
        """
        data, offsets = text_buffers(traces)
        counts = np.zeros(len(offsets) - 1, np.int64)
        start, stop = int(offsets[0]), int(offsets[-1])
        while start < stop:
            cuts = self._cut(data[:stop], offsets, start)
            rows = np.searchsorted(offsets, cuts[:-1], "right") - 1
            np.add.at(counts, rows, self._count_pieces(data, cuts))
            start = int(cuts[-1])
        return counts

    def _cut(self, data: np.ndarray, offsets: np.ndarray, start: int) -> np.ndarray:
        """Where the next pieces begin, and the last of them ends: int64[num_pieces + 1]."""
        size = WINDOW
        while True:
            window = data[start : start + size]
            begins = np.ones(len(window), bool)
            pairs = window[:-1].astype(np.uint16) << 8 | window[1:]
            np.take(self._table, pairs, out=begins[1:])
            first, last = np.searchsorted(offsets, [start, start + len(window)])
            begins[offsets[first:last] - start] = True
            cuts = start + np.append(np.flatnonzero(begins), len(window))
            self._check_longest(cuts)
            if cuts[-1] == len(data):
                return cuts
            if len(cuts) > 2:
                return cuts[:-1]
            size *= 2

    def _check_longest(self, cuts: np.ndarray) -> None:
        longest = int(np.diff(cuts).max())
        if longest > MAX_PIECE:
            raise TooLargeError(
                f"--tokenizer {self.name}: expected at most {MAX_PIECE:,} bytes of a text between "
                f"places where it can be cut, found at least {longest:,}"
            )

    def _count_pieces(self, data: np.ndarray, cuts: np.ndarray) -> np.ndarray:
        """Tokens of each piece, int64[num_pieces]."""
        buffers = [None, pa.py_buffer(cuts), pa.py_buffer(data)]
        pieces = pa.Array.from_buffers(pa.large_binary(), len(cuts) - 1, buffers)
        pieces = pieces.dictionary_encode()
        distinct = self._count_distinct(pieces.dictionary.to_pylist())
        counts: np.ndarray = distinct[np.asarray(pieces.indices)]
        return counts

    def _count_distinct(self, pieces: list[bytes]) -> np.ndarray:
        counts = list(map(self._known.get, pieces))
        missing = [number for number, count in enumerate(counts) if count is None]
        for batch in _batches(missing, pieces):
            texts = [pieces[number].decode("utf-8", "replace") for number in batch]
            for number, count in zip(batch, self._encode(texts), strict=True):
                counts[number] = count
        short = (number for number in missing if len(pieces[number]) <= KNOWN_BYTES)
        self._remember({pieces[number]: counts[number] for number in short})
        return np.array(counts, np.int64)

    def _encode(self, texts: list[str]) -> list[int]:
        # A long piece takes a hundred times its size, so there is one of them at a time.
        alone = self._lock if max(map(len, texts), default=0) > BATCH else nullcontext()
        try:
            with alone:
                encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library has no narrower one
            said = f"expected one that takes any text: {first_line(error)}"
            raise CurateError(f"--tokenizer {self.name}: {said}") from error
        return list(map(len, encoded))

    def _remember(self, counts: dict[bytes, Any]) -> None:
        if len(self._known) + len(counts) > KNOWN_PIECES:
            self._known.clear()
        self._known.update(counts)


def _batches(numbers: Iterable[int], pieces: list[bytes]) -> Iterator[list[int]]:
    """Numbers of pieces of BATCH bytes together, or of a single one that is longer."""
    batch: list[int] = []
    held = 0
    for number in numbers:
        if batch and held + len(pieces[number]) > BATCH:
            yield batch
            batch, held = [], 0
        batch.append(number)
        held += len(pieces[number])
    if batch:
        yield batch
