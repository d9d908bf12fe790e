r"""
Where a text may be cut so that its tokens are those of its pieces, read off the tokenizer.

A cut is made between two ASCII bytes only where it provably changes nothing:

* Normalisation: NFC and its kin never compose across it, as what follows is ASCII; nor does what
  follows change with what comes after it, as no composition begins with it.
* Added tokens: none holds the two bytes side by side, or reaches over them to strip blanks or to
  look for the end of a word. So those that are found are the same.
* Pre-tokenisation: no match of a regex can hold the two bytes side by side, nor look behind or
  ahead over them, so that all that is matched before and after the cut is matched without the other
  side too; and in one of the regexes some alternative always matches what follows, so that there
  is a boundary.
* The model sees what lies between boundaries, one at a time, whatever it is.

What is not understood is taken to be able to do anything: with another kind of normaliser or
pre-tokeniser, or a regex with syntax that is not read here, there are no cuts.
"""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` splits by, unless told not to."""

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
