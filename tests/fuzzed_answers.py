"""Texts as no model should write them, and as some do: real answers mutated, and made-up ones."""

import random

PIECES = (
    r"\boxed{|\boxed{}|\fbox {|}|{|}}}}|\frac{|\frac{1}{2}|\sqrt[|\sqrt{|\left(|\right)|\text{|\{"
    r"|\}|\\|$|$$|\(|\)|\[|\]|^|_|^{|!|!!|\binom{|\sum_{|\int_|\infty|\cup|\pmod{|\begin{pmatrix}|&|%|\%"
    r"|\frac|\dfrac12|\lim_{x\to0}|\log|\sin^{-1}|\pi|e^{|i|x|=|<|\le|,|;|:|\in|\mathbb{R}|\ldots|..."
    r"|</think>|<answer>|</answer>|<|im_end|>|</s>|answer is |Answer: |The answer is $|(A)|B.|**D**"
    r"|\text{(C)}|12 * 3|(1 + 2) / 3|×|÷|−|²|½|°|π|∞|é|中文|العربية|🙂"
).split("|")
ODD = (
    *("\x00", "\x07", "\x1b[31m", "\r", "\n", "\t", "\x0b", "\u2028", "\u0301" * 40, "\U0010ffff"),
    *("\u202e", "\u200b", "\ufeff", "\ufffd", "<think>"),
)
SURROGATES = ("\ud800", "\udfff", "\ud83d")

HARD = (
    "10^{10^{10^{10}}}",
    "(10^6)!",
    "((((9!)!)!)!)!",
    r"\sum_{n=1}^{10^9} \frac{1}{n^2}",
    r"\int_0^{10^9} e^{x^2} \sin(x^3) dx",
    r"\binom{10^9}{5 \cdot 10^8}",
    "2^{2^{2^{2^{2^{2}}}}}",
    r"\sqrt[10^9]{10^{10^9}}",
    "x^{1000000000} + 1",
    r"\prod_{k=1}^{10^7} k",
)


def fuzzed(rng: random.Random, seeds: list[str], *, surrogates: bool = False) -> str:
    """A text; with `surrogates` it may have half pairs, which no Arrow string has."""
    kind = rng.randrange(9)
    if kind == 0:
        text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(60)))
    elif kind == 1:
        text = f"\\boxed{{{rng.choice(HARD)}}}" if rng.random() < 0.1 else rng.choice(seeds)
    elif kind == 2:
        text = nested(rng)
    elif kind == 3:
        text = f"\\boxed{{{number(rng)}}}"
    elif kind == 4:
        text = f"\\boxed{{{''.join(rng.choice(PIECES) for _ in range(rng.randrange(12)))}}}"
    else:
        text = mutated(rng, rng.choice(seeds))
    if rng.random() < 0.2:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(ODD + (SURROGATES if surrogates else ())) + text[at:]
    if rng.random() < 0.5:
        text = f"<think>{rng.choice(PIECES)}</think>{text}"
    return text


def mutated(rng: random.Random, text: str) -> str:
    """A text with spans of it gone, twice there, elsewhere, or replaced."""
    for _ in range(rng.randrange(1, 6)):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        b = min(b, a + rng.choice((1, 3, 30, 3000)))
        piece = text[a:b]
        match rng.randrange(4):
            case 0:
                text = text[:a] + text[b:]
            case 1:
                text = text[:b] + piece * rng.choice((1, 2, 50)) + text[b:]
            case 2:
                text = text[:a] + rng.choice(PIECES) + text[b:]
            case _:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + piece + text[at:]
    return text[:100_000]


def nested(rng: random.Random) -> str:
    """Brackets in brackets, closed or not."""
    opening, closing = rng.choice(
        [
            ("{", "}"),
            ("(", ")"),
            (r"\frac{", "}{2}"),
            (r"\sqrt{", "}"),
            ("^{", "}"),
            (r"\boxed{", "}"),
        ]
    )
    depth = rng.choice((3, 30, 120, 400, 5000))
    return f"\\boxed{{{opening * depth}1{closing * rng.choice((depth, depth - 1, 0))}}}"


def number(rng: random.Random) -> str:
    """A number of up to ten thousand digits, or one that is nearly one."""
    digits = "".join(
        rng.choice("0123456789,. ") for _ in range(rng.choice((1, 5, 40, 900, 10_000)))
    )
    return rng.choice(("", "-", "+", "1e", "0x", "∞")) + digits
