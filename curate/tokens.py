r"""
How many tokens a trace has: exactly, given a tokenizer, or as an estimate from its bytes.

Encoding takes 2 to 3 MB/s on a core and some hundred bytes of memory for each byte of a text. So
texts are cut into pieces, equal pieces are counted once, and a trace has the sum of its pieces. A
cut is made between two ASCII bytes only where it provably changes nothing, which `cut_table` reads
off the tokenizer:

* Normalisation: NFC and its kin never compose across it, as what follows is ASCII; nor does what
  follows change with what comes after it, as no composition begins with it.
* Added tokens: none holds the two bytes side by side, or reaches over them to strip blanks or to
  look for the end of a word. So those that are found are the same.
* Pre-tokenisation: no match of a regex can hold the two bytes side by side, nor look behind or
  ahead over them, so that all that is matched before and after the cut is matched without the other
  side too; and in one of the regexes some alternative always matches what follows, so that there
  is a boundary.
* The model sees what lies between boundaries, one at a time, whatever it is.

What is not understood is taken to be able to do anything: of a tokenizer with another kind of
normaliser or pre-tokeniser, or a regex with syntax that is not read here, texts are counted whole,
which is as exact and has no bound but MAX_PIECE.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.buffers import text_buffers
from curate.errors import CurateError, TooLargeError
from curate.rawfooter import first_line

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
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` splits by, unless told not to."""


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
        try:
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


ASCII = 128
GRAPHIC = np.array([33 <= byte < 127 for byte in range(ASCII)])
COMPOSES = np.array([chr(byte).isalpha() or chr(byte) in "<=>" for byte in range(ASCII)])
"""ASCII that a canonical composition begins with, as `e` and a combining acute are `é`."""

NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD"}


def cut_table(tokenizer: "Tokenizer") -> np.ndarray:
    """
    Between which bytes a text may be cut, bool[256, 256]: the byte before, the byte after.

    The tokens of a text are those of its pieces wherever this is True, as the module's docstring
    argues; where that cannot be shown it is False.
    """
    table = np.zeros((256, 256), bool)
    stages = _stages(tokenizer.pre_tokenizer)
    if stages is None or not all(kind in NORMALIZERS for kind in _kinds(tokenizer.normalizer)):
        return table
    allowed = _boundaries(stages) & GRAPHIC[:, None] & ~COMPOSES
    if any(stage.get("add_prefix_space") for stage in stages):
        allowed &= np.arange(ASCII) == ord(" ")  # what begins with one gets no other
    table[:ASCII, :ASCII] = allowed
    for token in tokenizer.get_added_tokens_decoder().values():
        _forbid(table, token, tokenizer.normalizer)
    return table


def _parts(component: Any, name: str) -> list[dict[str, Any]]:
    """A normaliser or pre-tokeniser as its parts, flat; none of None."""
    if component is None:
        return []
    flat, rest = [], [json.loads(component.__getstate__())]
    while rest:
        part = rest.pop(0)
        if part["type"] == "Sequence":
            rest = part[name] + rest
        else:
            flat.append(part)
    return flat


def _kinds(normalizer: Any) -> list[str]:
    return [part["type"] for part in _parts(normalizer, "normalizers")]


def _stages(pre_tokenizer: Any) -> list[dict[str, Any]] | None:
    """Its parts, each with the `regex` that it splits by or None; None where one is unknown."""
    stages = _parts(pre_tokenizer, "pretokenizers")
    for stage in stages:
        match stage:
            case {"type": "ByteLevel"}:
                stage["regex"] = GPT2_REGEX if stage["use_regex"] else None
            case {"type": "Digits"}:
                stage["regex"] = r"\p{N}" if stage["individual_digits"] else r"\p{N}+"
            case {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": regex}}:
                stage["regex"] = regex
            case _:
                return None
    return stages


def _boundaries(stages: list[dict[str, Any]]) -> np.ndarray:
    """Between which ASCII there is always a boundary that neither side knows of, bool[128, 128]."""
    found = np.zeros((ASCII, ASCII), bool)
    apart = ~found
    for stage in stages:
        if stage["regex"] is not None:
            facts = read_regex(stage["regex"])
            apart &= ~facts.joins
            found |= apart & facts.matches
        if stage["type"] == "ByteLevel":  # behind it, characters stand for bytes
            break
    return found


def _forbid(table: np.ndarray, token: Any, normalizer: Any) -> None:
    """Take out where a cut could change whether, or how far, an added token is found."""
    normal = normalizer.normalize_str(token.content) if normalizer else token.content
    for text in filter(None, {token.content, normal}):
        content = np.frombuffer(text.encode(), np.uint8)
        table[content[:-1], content[1:]] = False
        if token.rstrip or token.single_word:
            table[content[-1]] = False
        if token.single_word:
            table[:, content[0]] = False


@dataclass(frozen=True, slots=True)
class RegexFacts:
    """
    What holds of every match of a regex, in whatever text.

    `joins[a, b]`, bool[128, 128]: a match, or an attempt at one, may hold `b` right after `a`, or
    look at it. `matches[b]`, bool[128]: where an attempt begins at `b`, it succeeds.
    """

    joins: np.ndarray
    matches: np.ndarray


REGEX_PART = re.compile(
    r"""
    (?P<atom> \\[sSdDwWrnt] | \\[pP]\{\^?\w+\} | \\[^\w\s] | [^\\()\[\]|?*+{}^$]
        | \[ (?: \\. | \[ (?: \\. | [^\[\]\\] )* \] | [^\[\]\\] )* \] )
        (?P<times> [?*+] | \{\d*,?\d*\} )? [?+]?
    | (?P<group> \( \? i? : | \) (?! [*+{] ) \?? [?+]? )
    | (?P<ahead> \(\?!\\S\) )
    | (?P<either> \| )
    """,
    re.VERBOSE,
)
"""The syntax that is read: one of these after the other. A group is never repeated."""

OPTIONAL = ("?", "*", "{0", "{,")
"""How the times begin that an atom may be left out."""


def read_regex(regex: str) -> RegexFacts:
    """
    What can be shown of a regex; of one with other syntax, nothing: it may join all, match none.

    The order of its parts is all that is looked at: two that may both take part stand for any way
    from one to the other. So it may say that a match joins what none does, never the reverse.
    """
    joins, matches = np.zeros((ASCII, ASCII), bool), np.zeros(ASCII, bool)
    parts = list(REGEX_PART.finditer(regex))
    if "".join(part[0] for part in parts) != regex:
        return RegexFacts(~joins, matches)
    alternatives = _alternatives(parts)
    for alternative in alternatives:
        _read_alternative(alternative, joins, matches)
    return RegexFacts(joins, matches & all(map(_takes_any, alternatives)))


def _alternatives(parts: list[re.Match[str]]) -> list[list[re.Match[str]]]:
    """The parts between bars outside groups."""
    found: list[list[re.Match[str]]] = [[]]
    depth = 0
    for part in parts:
        if part["group"]:
            depth += 1 if part["group"].startswith("(") else -1
        if part["either"] and not depth:
            found.append([])
        else:
            found[-1].append(part)
    return found


def _read_alternative(parts: list[re.Match[str]], joins: np.ndarray, matches: np.ndarray) -> None:
    seen = np.zeros(ASCII, bool)
    needed = []
    plain = all(part["atom"] for part in parts)
    for part in parts:
        if part["ahead"]:
            joins |= seen[:, None]
        if part["atom"]:
            times = part["times"] or ""
            taken = _members(part["atom"], any_case=not plain)
            joins |= np.outer(seen if times in ("", "?") else seen | taken, taken)
            if not times.startswith(OPTIONAL):
                needed.append(taken & ~seen)
            seen = seen | taken
    if plain and len(needed) == 1:
        matches |= needed[0]


def _takes_any(parts: list[re.Match[str]]) -> bool:
    """Whether no match of an alternative is empty."""
    shape = "".join(map(_shape, parts))
    shape = re.sub(r"\(o*n[no]*(\|o*n[no]*)*\)(?!\?)", "n", shape)
    return "n" in re.sub(r"\([no|]*\)\??", "", shape) and not re.search(r"\([^)]*\(", shape)


def _shape(part: re.Match[str]) -> str:
    """A letter for an atom, needed or optional; `(`, `)`, `)?` or `|`; nothing for a look ahead."""
    if part["atom"]:
        return "o" if (part["times"] or "").startswith(OPTIONAL) else "n"
    return (part["group"] or part["either"] or "").replace("?i:", "").replace("?:", "")


def _members(atom: str, *, any_case: bool) -> np.ndarray:
    """The ASCII that a character class matches, as the library itself has it: bool[128]."""
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(f"(?i:{atom})" if any_case else atom), "removed")
    return np.array([not split.pre_tokenize_str(chr(byte)) for byte in range(ASCII)])
