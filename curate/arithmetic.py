"""Arithmetic expressions that have to reach a target from given numbers: the game of Countdown."""

import ast
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

# Six numbers need about 40 characters. The bound keeps deep nesting from the parser; the alphabet
# keeps names, floats, underscores and the digits of other scripts from it.
ANSWER = re.compile(r"[0-9+\-*/() ]{1,200}")


def verify(answer: str, numbers: Sequence[int], target: int, *, use_all: bool = False) -> bool:
    """
    Whether an arithmetic expression uses each number at most once and its value is the target.

    With `use_all` it must use each of them. The value is exact and nothing but the four binary
    operators counts, so -3 is no number. Values on the way there may be fractions or negative.
    """
    if not ANSWER.fullmatch(answer):
        return False
    unused = list(numbers)
    try:
        reached = _value(ast.parse(answer.strip(), mode="eval").body, unused) == target
    except (SyntaxError, ValueError, ZeroDivisionError):
        return False
    return reached and not (use_all and unused)


def _value(node: ast.expr, unused: list[int]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            unused.remove(number)
            return Fraction(number)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left, unused), _value(right, unused))
    raise ValueError(node)
