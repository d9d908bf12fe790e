"""
The final answer of a completion, and what can be said of it against the gold without a library.

Comparing is safe to do in any thread and costs microseconds; whatever `settled` cannot settle takes
computer algebra, and that is `curate.grading`.
"""

import re
from functools import lru_cache

STATUSES = ("correct", "wrong", "no_answer", "truncated", "parse_error", "timed_out")
"""How an answer fared; a row without a gold has none of them, but null."""

CLOSING_TAG = "</think>"

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
PLAIN_BOX = "\\boxed{"
SIMPLE = re.compile(r"[^\\{}]*")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a character of the answer
BOX_OR_BRACE = re.compile(rf"(?P<box>{BOX.pattern})|{BRACE.pattern}", re.DOTALL)

LONGEST_BARE = 100
"""Characters of an answer part that may be the answer as it stands, where there is no box."""

LAST_WORDS = 2_000
"""Characters at the end of an answer part in which an answer without a box is looked for."""

SAID = re.compile(r"\banswer\W{0,4}(?:is\b|:|=)[:\s*_]*(?=\S)([^\n]*)", re.IGNORECASE)
SENTENCE_END = re.compile(r"\.(?=\s|$)")
LOOSE_NUMBER = re.compile(r"(?<![\w.-])-?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?(?![0-9A-Za-z])")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
LOOSE_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
LETTER = re.compile(r"[A-Za-z]")
WORDS_OF_PROSE = 3

SHORT = 40
"""Characters of a text whose number is remembered."""

INTEGER = re.compile(r"([+-]?)([0-9]+)")
NUMBER = re.compile(r"([+-]?)([0-9]{1,3}(?:(?:,|\{,\}|\\,|,\\!| )[0-9]{3})+|[0-9]*)(?:\.([0-9]*))?")
NOT_DIGIT = re.compile(r"[^0-9]+")
EXACT_DECIMALS = 6
"""math-verify rounds to as many: numbers that have no more are as different as they look."""

DEGREE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|°")
SPACING = re.compile(r"\\[,;: ]|\\q?quad(?![a-zA-Z])|~")
NOTHING = re.compile(r"\\!|\\(?:left|right|displaystyle|limits)(?![a-zA-Z])|\\?\$|\\[()\[\]]")
THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))")
FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
STYLED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
NEEDLESS_BLANK = re.compile(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])")

ROMAN_E = re.compile(r"\\(?:mathrm|text|rm)\s*\{\s*e\s*\}")
ROOT_OF_BRACKET = re.compile(r"\\sqrt\s*\(([^()]*)\)")
MATHS_BEGINS = re.compile(r"\$|\\\(|\\\[")

WORDS = re.compile(r"[A-Za-z][A-Za-z' -]+")
CHOICE = re.compile(r"\(([A-J])\)\.?|([A-J])[.:)]?")
CHOICE_AND_TEXT = re.compile(r"(?:\(([A-J])\)|([A-J])[.:)])(.*)")
LONE_CAPITAL = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
ROW = re.compile(r"-?[0-9.]+(?: -?[0-9.]+)+")
BASED = re.compile(r"([0-9A-Za-z]+)_\{?([0-9]+)\}?")


def answer_part(text: str) -> str | None:
    """What stands behind the last `</think>`; None where the thinking was never closed."""
    _, tag, answer = text.rpartition(CLOSING_TAG)
    return answer if tag else None


def last_box(part: str) -> str | None:
    r"""What is in the last balanced `\boxed{...}` or `\fbox{...}`, or None; linear in time."""
    begin, end = part.rfind(PLAIN_BOX) + len(PLAIN_BOX), part.rfind("}")
    if begin < len(PLAIN_BOX) or not SIMPLE.fullmatch(part, begin, end) or BOX.search(part, end):
        begin, end = _any_box(part)  # which few take
    return part[begin:end].strip() or None


def _any_box(part: str) -> tuple[int, int]:
    """Begin and end of what is in the last box, or of nothing."""
    boxes = list(BOX.finditer(part))
    if not boxes:
        return 0, 0
    begin = boxes[-1].end()
    end = _closing(part, begin)
    return _last_balanced(part) if end is None else (begin, end)


def _closing(text: str, begin: int) -> int | None:
    """Where the brace closes that was opened just before `begin`."""
    depth = 1
    for brace in BRACE.finditer(text, begin):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None


def _last_balanced(text: str) -> tuple[int, int]:
    """Begin and end of what is in the box that opens last of those that close; (0, 0) for none."""
    last = (0, 0)
    opened: list[int] = []
    for found in BOX_OR_BRACE.finditer(text):
        if found["box"]:
            opened.append(found.end())
        elif found[0] == "{":
            opened.append(0)
        elif found[0] == "}" and opened:
            last = max(last, (opened.pop(), found.start()))
    return last if last[0] else (0, 0)


def final_answer(part: str, *, lenient: bool = False) -> str | None:
    r"""
    The answer of an answer part: what is in its last box, or None for no answer.

    With `lenient`, a part that has no box at all may answer otherwise, in this order: between the
    last `<answer>` tags; then, in its last 2,000 characters, behind the last "answer is" or
    "answer:"; as it stands, if it is one line (several of numbers only) of at most 100 characters
    and no prose; by what its last formula comes to, or by a number that follows it.
    """
    box = last_box(part)
    if box is not None or not lenient or BOX.search(part):
        return box
    before, closed, _ = part.rpartition("</answer>")
    _, opened, tagged = before.rpartition("<answer>")
    return _unboxed((tagged if closed and opened else part).strip()[-LAST_WORDS:])


def _unboxed(part: str) -> str | None:
    said = SAID.findall(part)
    if said:
        sentence = _bare(SENTENCE_END.split(said[-1])[0])
        return _said_first(sentence) if _is_prose(sentence) else sentence or None
    bare = _bare(part)
    if len(bare) <= LONGEST_BARE and not _is_prose(bare) and not _has_lines_of_text(bare):
        return bare or None
    return _last_formula(bare) or next(reversed(_numbers(bare)), None)


def _has_lines_of_text(text: str) -> bool:
    return "\n" in text and bool(LETTER.search(text))


def _said_first(sentence: str) -> str:
    """The formula that a sentence begins with, or its first number."""
    formula = FORMULA.match(sentence)
    return formula[formula.lastindex or 0].strip() if formula else _numbers(sentence)[0]


def _last_formula(text: str) -> str | None:
    """What the last formula comes to, unless a number follows it."""
    formulas = list(FORMULA.finditer(text))
    if not formulas or _numbers(text[formulas[-1].end() :]):
        return None
    return formulas[-1][formulas[-1].lastindex or 0].rpartition("=")[2].strip() or None


def _numbers(text: str) -> list[str]:
    return [found[0].rstrip(",") for found in LOOSE_NUMBER.finditer(text)]


def _bare(text: str) -> str:
    """Without the marks of Markdown and the full stop around it."""
    return text.strip().strip("*_`").rstrip(".").strip()


def _is_prose(line: str) -> bool:
    """Whether an answer is a number inside a sentence, rather than the line as a whole."""
    words = LOOSE_WORD.findall(line)
    return len(words) >= WORDS_OF_PROSE and bool(_numbers(line))


def settled(answer: str, gold: str) -> bool | None:
    """
    Whether an answer is the gold, or None where only computer algebra could tell.

    Settled are plain numbers (thousands, leading zeros, degrees, currency aside), what is equal
    but for spacing and style of LaTeX, words, choices (A to J), rows of numbers and numbers in some
    base.
    """
    numbers = plain_number(answer), plain_number(gold)
    if numbers[0] is not None and numbers[1] is not None:
        if numbers[0] == numbers[1]:
            return True
        exact = all(len(number.partition(".")[2]) <= EXACT_DECIMALS for number in numbers if number)
        return False if exact else None
    plain = normalised(answer), normalised(gold)
    if plain[0] == plain[1]:
        return bool(plain[1])
    for settle in (_same_words, _same_choice, _same_row, _same_in_base):
        same_so = settle(*plain)
        if same_so is not None:
            return same_so
    return None


def plain_number(text: str) -> str | None:
    """A plain integer or decimal in one form for each value, `-1234.5`; None for all else."""
    return _short_number(text) if len(text) <= SHORT else _plain_number(text)


def _plain_number(text: str) -> str | None:
    text = " ".join(text.split()).replace("−", "-")  # many blanks would take the square of it
    number = INTEGER.fullmatch(text)
    if number:
        return _number(number[1], number[2], "")
    number = NUMBER.fullmatch(DEGREE.sub("", text).replace("\\$", "").strip("$ "))
    if not number or not (number[2] or number[3]):
        return None
    return _number(number[1], NOT_DIGIT.sub("", number[2]), number[3] or "")


_short_number = lru_cache(maxsize=1 << 14)(_plain_number)  # a problem has many answers, one gold


def _number(sign: str, whole: str, decimals: str) -> str:
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return f"-{value}" if sign == "-" and value != "0" else value


def normalised(latex: str) -> str:
    """An answer without what LaTeX only shows: spacing, sizes, delimiters, fonts; and degrees."""
    latex = THOUSANDS.sub("", " ".join(latex.split()))
    for pattern, text in (DEGREE, ""), (SPACING, " "), (NOTHING, ""), (FRACTION, r"\\frac"):
        latex = pattern.sub(text, latex)
    latex = STYLED.sub(r"\1", STYLED.sub(r"\1", latex)).replace("−", "-").strip()
    latex = latex.removesuffix(".").removesuffix("%").removesuffix("\\")
    return " ".join(NEEDLESS_BLANK.sub("", latex).split())


def as_latex(text: str) -> str:
    """An answer or a gold as math-verify has to be given it: between dollars, on one line."""
    text = " ".join(text.split()).rstrip(".").replace("\\$", "")
    text = DEGREE.sub(r"^\\circ ", THOUSANDS.sub("", text))
    text = ROOT_OF_BRACKET.sub(r"\\sqrt{\1}", ROMAN_E.sub("e", text))
    if text.count("$") % 2:
        text = text.replace("$", "")
    return text if MATHS_BEGINS.search(text) else f"${text}$"


def choice_of(answer: str) -> str | None:
    """The letter, A to J, of a `normalised` choice, its text behind it or not; None for none."""
    chosen = CHOICE.fullmatch(answer)
    if not chosen:
        chosen = CHOICE_AND_TEXT.fullmatch(answer)
        if not chosen or LONE_CAPITAL.search(chosen[3]):  # as of another choice
            return None
    return chosen[1] or chosen[2]


def _same_words(answer: str, gold: str) -> bool | None:
    """Computer algebra would take a word for a product of letters, in any order."""
    if not (WORDS.fullmatch(answer) and WORDS.fullmatch(gold)):
        return None
    if answer.casefold() == gold.casefold():
        return True
    return False if re.search("[A-Za-z]{4}", answer + " " + gold) else None


def _same_choice(answer: str, gold: str) -> bool | None:
    right = CHOICE.fullmatch(gold)
    chosen = choice_of(answer) if right else None
    return chosen == (right[1] or right[2]) if right and chosen else None


def _same_row(answer: str, gold: str) -> bool | None:
    """Numbers side by side, as in a grid, that are not the same text; not their product either."""
    return False if ROW.fullmatch(answer) or ROW.fullmatch(gold) else None


def _same_in_base(answer: str, gold: str) -> bool | None:
    """`1204_9` and `1204_8` differ, which math-verify does not see."""
    in_base, right = BASED.fullmatch(answer), BASED.fullmatch(gold)
    return in_base.groups() == right.groups() if in_base and right else None
