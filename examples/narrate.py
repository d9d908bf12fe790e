"""
Tell the search for a Countdown solution as a reasoning trace.

A *state* is the numbers still free; a *move* replaces two of them by what an operator makes of
them. A *branch* is one attempt at a state: a first move, then further moves until two numbers are
left and what they make is listed, or until the search loses interest and leaves the attempt. On
its way an attempt may make and leave attempts at later states; their branches lie inside its own.

    3, 5 and 8 to 23    branch 1, abandoned: 8 - 5 = 3; of 3 and 3: 3 + 3 = 6, 3 * 3 = 9
                        branch 2:            5 * 3 = 15; 15 + 8 = 23

A blind search of six numbers would make thousands of attempts. So the order of this one is
arranged: the problem brings a solution, whose moves come last at their states, and the attempts
before them are drawn among the moves that fail. What is told has happened: each equation was
computed, each failure is one, and to leave an attempt early is told as a choice, not as a proof.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

STYLES = ("divergent", "convergent")
SLIP = 0.2  # share of convergent traces with a failed attempt, so that the styles overlap
CHECKED = 0.5  # share of divergent traces that check their solution; convergent ones all do
FOLLOW = 0.7  # how often a failing attempt goes on while more than two numbers are left
NESTED = 3  # a failing attempt has fewer than this many attempts inside it, per state
DRAWS = 8  # how often a failing move is drawn before a state counts as used up

STEP, MORE = "\n\n", " "  # what stands before a new step, and before more of the same step

# The phrases are ASCII, so that a position in the text is one in its bytes.
INTROS = (
    "I need to reach {target} using {state}.",
    "The target is {target} and the numbers are {state}.",
    "Okay, so I have {state} and I want {target}.",
    "Let me see. The numbers are {state}, and the target is {target}.",
)
PLANS = (
    "Plan: {plan}.",
    "The plan is to make {plan}.",
    "I can make {plan}.",
)
STARTS = (
    "First, {move}.",
    "Let me start with {move}.",
    "I begin with {move}.",
)
GUESSES = (
    "Perhaps {move}.",
    "Maybe we can use {move}.",
    "We could try {move}.",
    "Hmm, {move}.",
    "Let me look at {move}.",
)
ALTERNATIVES = (
    "Alternatively, {move}.",
    "Alternatively, I take {move}.",
    "Alternatively, maybe we can use {move}.",
    "Another approach: {move}.",
    "Another way: {move}.",
    "Another idea: {move}.",
    "Another option is {move}.",
    "Another method would be {move}.",
    "Let me try another move: {move}.",
    "Let me try a different move: {move}.",
    "Let's try another combination: {move}.",
    "But wait, we could try {move}.",
    "Hmm, maybe we can do {move}.",
    "We could try {move}.",
    "Perhaps {move}.",
    "Hmm, what about {move}?",
)
CONTINUATIONS = (
    "Then {move}.",
    "Next, {move}.",
    "Now {move}.",
    "From here, {move}.",
)
LEFTOVERS = (
    "That leaves {state}.",
    "Now I have {state}.",
    "Left are {state}.",
)
MISSES = (
    "No {target} here.",
    "None of this is {target}.",
    "The closest here is {closest}, off by {gap}.",
    "The closest here is {closest}, but I need {target}.",
)
LOSSES = (
    "I don't see {target} from {state}.",
    "With {state} I see no good next step.",
    "I would rather not go on with {state}.",
)
RETURNS = (
    "That doesn't work. Back to {state}.",
    "Hmm, that doesn't work. I go back to {state}.",
    "Hmm, not what I need. Back to {state}.",
    "But wait, this does not give me {target}. Back to {state}.",
    "So this attempt fails, and I return to {state}.",
    "Wait, no. Let me go back to {state}.",
)
EXITS = (
    "No, I leave that. Back to {state}.",
    "So I go back to {state}.",
    "Let me go back to {state}.",
)
HITS = (
    "That is the target.",
    "That is exactly {target}.",
    "And {target} is what I need.",
)
CHECKS = (
    "Check: {moves}. Each number is used at most once.",
    "Let me verify: {moves}. No number is used twice.",
    "To double-check: {moves}. That is right.",
)
ANSWERS = (
    "The answer is {answer}.",
    "So the answer is {answer}.",
    "Answer: {answer}.",
)
SURRENDERS = (
    "I stop here. The closest I have is {answer}, so that is my answer.",
    "I run out of ideas, so I settle for {answer}.",
)


class Move(NamedTuple):
    """Two numbers, the larger one first, and what an operator makes of them."""

    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right} = {self.result}"


class Branch(NamedTuple):
    """A half-open byte range of the trace that tells one attempt, and whether it was left."""

    start: int
    end: int
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """Numbers in ascending order, a target, and one way from these to that."""

    numbers: tuple[int, ...]
    target: int
    solution: tuple[Move, ...]
    ceiling: int  # larger products are not tried
    failures: tuple[int, int]  # bounds of how many attempts may fail in a divergent trace


@dataclass(frozen=True, slots=True)
class Trace:
    """A told search: its text, what it answers, and its branches in the order of their ends."""

    text: str
    answer: str
    branches: list[Branch]


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """One item. `Random.random` promises the same numbers in every Python; `choice` does not."""
    return items[int(rng.random() * len(items))]


@lru_cache(maxsize=1 << 16)  # a third of the time goes here without it
def legal_moves(a: int, b: int, ceiling: int) -> tuple[Move, ...]:
    """
    All moves on two numbers whose result is a positive integer.

    Left out are products above the ceiling, and results equal to one of the two numbers: leaving
    the other one unused does the same.
    """
    a, b = max(a, b), min(a, b)
    moves = [Move(a, "+", b, a + b)]
    if a - b not in (0, b):
        moves.append(Move(a, "-", b, a - b))
    if b > 1 and a * b <= ceiling:
        moves.append(Move(a, "*", b, a * b))
    if b > 1 and a % b == 0 and a // b != b:
        moves.append(Move(a, "/", b, a // b))
    return tuple(moves)


def draw_move(rng: Random, state: Sequence[int], ceiling: int) -> Move:
    """A legal move on two numbers of a state."""
    first = int(rng.random() * len(state))
    second = int(rng.random() * (len(state) - 1))
    second += second >= first
    return pick(rng, legal_moves(state[first], state[second], ceiling))


def apply(state: Sequence[int], move: Move) -> list[int]:
    """The numbers that a move leaves, in ascending order."""
    rest = list(state)
    rest.remove(move.left)
    rest.remove(move.right)
    insort(rest, move.result)
    return rest


def expression(numbers: Sequence[int], moves: Sequence[Move]) -> str:
    """The last move's result, or without moves the last number, written in the given numbers."""
    pool = [(number, str(number), 3) for number in numbers]
    for move in moves:
        left, right = _take(pool, move.left), _take(pool, move.right)
        rank = 1 if move.operator in "+-" else 2
        # a - (b - c) needs its parentheses, a + (b - c) does not.
        right_rank = rank + (move.operator in "-/")
        text = f"{_wrapped(left, rank)} {move.operator} {_wrapped(right, right_rank)}"
        pool.append((move.result, text, rank))
    return pool[-1][1]


def _take(pool: list[tuple[int, str, int]], value: int) -> tuple[int, str, int]:
    return pool.pop(next(i for i, (number, _, _) in enumerate(pool) if number == value))


def _wrapped(operand: tuple[int, str, int], least_rank: int) -> str:
    _, text, rank = operand
    return text if rank >= least_rank else f"({text})"


def listed(items: Sequence[object]) -> str:
    """`3, 5 and 8`."""
    *head, last = map(str, items)
    return f"{', '.join(head)} and {last}" if head else last


def narrate(problem: Problem, style: str, rng: Random, *, wrong: bool = False) -> Trace:
    """Search for the target in a style; a wrong search is one that gives up."""
    search = Search(problem, rng, _failures(problem, style, rng, wrong))
    search.say(INTROS, state=listed(problem.numbers))
    if wrong:
        return search.surrender()
    if style == "convergent" and not search.failures:
        search.plan()
    search.solve()
    if style == "convergent" or rng.random() < CHECKED:
        search.say(CHECKS, moves=", ".join(map(str, problem.solution)))
    return search.conclude(ANSWERS, expression(problem.numbers, problem.solution))


def _failures(problem: Problem, style: str, rng: Random, wrong: bool) -> int:
    if style == "convergent":
        return int(wrong or rng.random() < SLIP)
    fewest, most = problem.failures
    return fewest + int(rng.random() * (most - fewest + 1))


class Search:
    """A search and what has been told of it."""

    def __init__(self, problem: Problem, rng: Random, failures: int) -> None:
        self.problem = problem
        self.rng = rng
        self.failures = failures  # how many more attempts may fail
        self.path: list[Move] = []
        self.closest: list[Move] = []  # the way to the result nearest to the target
        self.gap = abs(problem.target - problem.numbers[-1])
        self.told: list[str] = []
        self.size = 0
        self.branches: list[Branch] = []

    def plan(self) -> None:
        """Tell what the solution's moves will make."""
        parts = (
            f"{move.result} from {move.left} and {move.right}" for move in self.problem.solution
        )
        self.say(PLANS, plan=", then ".join(parts))

    def solve(self) -> None:
        """Make the solution's moves, each after the attempts that fail at its state."""
        first, *later = self.problem.solution
        failed = self.fail(self.problem.numbers, {first}, self.reserve())
        start = self.size + len(STEP)
        state = self.move(ALTERNATIVES if failed else STARTS, self.problem.numbers, first)
        for move in later:
            self.fail(state, {move}, self.reserve())
            state = self.move(CONTINUATIONS, state, move)
        self.branches.append(Branch(start, self.size, abandoned=False))

    def surrender(self) -> Trace:
        """Fail, and answer with the closest result."""
        self.fail(self.problem.numbers, set(), 0)
        return self.conclude(SURRENDERS, expression(self.problem.numbers, self.closest))

    def conclude(self, phrases: Sequence[str], answer: str) -> Trace:
        """Close the trace with its answer."""
        self.say(phrases, answer=answer)
        return Trace("".join(self.told), answer, self.branches)

    def reserve(self) -> int:
        """How many failures to keep for later states; most are spent at the first."""
        return int(self.failures * self.rng.random() ** 2)

    def fail(self, state: Sequence[int], tried: set[Move], reserve: int) -> bool:
        """Make failing attempts at a state, down to a reserve, and say whether there were any."""
        failed = False
        while len(state) > 2 and self.failures > reserve:
            if (move := self.failing_move(state, tried)) is None:
                break
            self.branch(ALTERNATIVES if failed else GUESSES if self.path else STARTS, state, move)
            tried.add(move)
            failed = True
        return failed

    def branch(self, phrases: Sequence[str], state: Sequence[int], move: Move) -> None:
        """Tell a failing attempt, from the step that opens it to the words that leave it."""
        start, depth = self.size + len(STEP), len(self.path)
        self.failures -= 1
        exhausted = self.follow(self.move(phrases, state, move))
        before = pick(self.rng, (STEP, MORE))
        self.say(RETURNS if exhausted else EXITS, before, state=listed(state))
        self.branches.append(Branch(start, self.size, abandoned=True))
        del self.path[depth:]

    def follow(self, state: Sequence[int]) -> bool:
        """Go on with a failing attempt, and say whether to the end."""
        if len(state) == 2:
            self.exhaust(state)
            return True
        tried: set[Move] = set()
        self.fail(state, tried, max(0, self.failures - int(self.rng.random() * NESTED)))
        goes_on = self.rng.random() < FOLLOW
        if goes_on and (move := self.failing_move(state, tried)):
            return self.follow(self.move(CONTINUATIONS, state, move))
        self.say(LOSSES, state=listed(state))
        return False

    def exhaust(self, state: Sequence[int]) -> None:
        """List what two numbers make, none of it the target."""
        moves = legal_moves(*state, self.problem.ceiling)
        gap, closest = min((abs(move.result - self.problem.target), move.result) for move in moves)
        self.say((f"{', '.join(map(str, moves))}.",))
        self.say(MISSES, MORE, closest=closest, gap=gap)
        for move in moves:
            self.note(move)

    def failing_move(self, state: Sequence[int], tried: set[Move]) -> Move | None:
        """A move not tried, after which the target is neither made nor all that is left to make."""
        for _ in range(DRAWS):
            move = draw_move(self.rng, state, self.problem.ceiling)
            if move not in tried and not self.succeeds(state, move):
                return move
        return None

    def succeeds(self, state: Sequence[int], move: Move) -> bool:
        """Whether a move makes the target, or leaves just two numbers that make it."""
        ends: tuple[Move, ...] = (move,)
        if len(state) == 3:
            ends += legal_moves(*apply(state, move), self.problem.ceiling)
        return any(end.result == self.problem.target for end in ends)

    def move(self, phrases: Sequence[str], state: Sequence[int], move: Move) -> list[int]:
        """Make a move, tell it, and give what it leaves."""
        rest = apply(state, move)
        self.say(phrases, move=move)
        hit = move.result == self.problem.target
        self.say(HITS if hit else LEFTOVERS, MORE, state=listed(rest))
        self.note(move)
        self.path.append(move)
        return rest

    def note(self, move: Move) -> None:
        """Remember how to make the closest result so far."""
        gap = abs(move.result - self.problem.target)
        if gap < self.gap:
            self.gap, self.closest = gap, [*self.path, move]

    def say(self, phrases: Sequence[str], before: str = STEP, **slots: object) -> None:
        """Tell one of the phrases, as a new step or as more of the last one."""
        text = pick(self.rng, phrases).format(target=self.problem.target, **slots)
        self.told.append(before + text if self.told else text)
        self.size += len(self.told[-1])
