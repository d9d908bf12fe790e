"""
Generation without waste: rows that are done leave the batch, and others take their places.

A fixed batch runs until its longest row is done, and long chains of thought have long tails: most
of its work is padding. Here each step decodes the rows that are still being written, over a cache
with places (`curate.evaluate.slots`). Which rows are together changes no token, as tokens are drawn
by `curate.evaluate.sampling`; where rounding might change one, its logits are computed anew for its
row alone.
"""

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from transformers import Cache, DynamicCache

from curate.errors import CurateError
from curate.evaluate.sampling import Choice, Sampling, choose
from curate.evaluate.slots import Slots
from curate.rawfooter import first_line

PREFILL_TOKENS = 16_384
"""Tokens of prompts in one forward pass, padding included; a longer prompt has one of its own."""

FILLED_AT_ONCE = 8
"""Places are filled once an eighth of them is free: a pass over two prompts costs what one does."""

EXACT, ROUGH = 1e-3, 0.1
"""How far logits may be apart, as a share of the greatest: in float32, and in types of 16 bits."""

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True, slots=True)
class Request:
    """A completion to write: its storage key, the prompt's token ids, what its noise hangs on."""

    key: str
    prompt_ids: Sequence[int]
    noise: int


@dataclass(frozen=True, slots=True)
class Written:
    """A completion: the new tokens, the one that stopped it included, and whether one did."""

    request: Request
    token_ids: list[int]
    stopped: bool


@dataclass(slots=True)
class _Row:
    request: Request
    token_ids: list[int] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [*self.request.prompt_ids, *self.token_ids]

    @property
    def new(self) -> int:
        return len(self.token_ids)


class Decoder:
    """
    Writes completions with up to `batch` rows at once.

    `stop_ids` end a completion. `tell` hears of tokens as they are written. Where memory does not
    suffice, the batch is halved and its rows are taken up again where they were; `halved` hears of
    how many rows there may then be.
    """

    def __init__(
        self,
        model: Any,
        sampling: Sampling,
        stop_ids: Iterable[int],
        batch: int,
        tell: Callable[[int], None] = lambda tokens: None,
        halved: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._model, self._sampling = model, sampling
        self._stop, self._tell, self._halved = frozenset(stop_ids), tell, halved
        self._exact = next(model.parameters()).dtype == torch.float32
        self._last_only = last_logits_only(model)
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._most = batch
        self._slots = Slots(batch)
        self.settled_alone = 0

    @torch.inference_mode()
    def write(self, requests: Iterable[Request]) -> Iterator[Written]:
        """The completions as they are done, the requests begun in their order."""
        self._waiting.extend(map(_Row, requests))
        if not self._rows:  # no places that nobody would take
            self._slots = Slots(min(self._most, len(self._waiting)))
        while self._waiting or self._rows:
            try:
                yield from self._fill() if self._is_to_fill() else self._step()
            except RuntimeError as error:
                if not _is_no_memory(error):
                    raise
                self._halve()

    @torch.inference_mode()
    def check(self, requests: Sequence[Request]) -> None:
        """
        Raise CurateError unless a step over two rows gives the logits that each has alone.

        States that are not keys and values, or positions that are not told, go wrong silently.
        """
        ids = list(min(requests, key=lambda one: len(one.prompt_ids)).prompt_ids)
        rows = [_Row(Request("", ids[begin:], 0)) for begin in (0, len(ids) // 2)]
        name = type(self._model).__name__
        try:
            apart = self._apart(rows)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CurateError(f"{name} cannot be decoded: {first_line(error)}") from None
        if math.isnan(apart):
            raise CurateError(f"{name}: expected logits that are numbers, found NaN")
        if apart >= (EXACT if self._exact else ROUGH):
            raise CurateError(
                f"{name}: expected a row in a batch to have the logits that it has alone, found "
                f"them {apart:.1%} apart: --backend continuous may know how to"
            )

    def _apart(self, rows: Sequence[_Row]) -> float:
        """How far logits of a step over rows are from those alone, as a share of the greatest."""
        slots, cache = Slots(len(rows)), DynamicCache()
        ids = [row.ids for row in rows]
        token = int(self._forward(*_padded(ids), cache)[0].argmax())
        slots.add(cache, [len(each) for each in ids])
        at = torch.tensor([[len(each)] for each in ids])
        found = self._forward(torch.full_like(at, token), slots.mask(), at, slots.cache).float()
        alone = [self._forward(*_padded([[*each, token]]), None)[0].float() for each in ids]
        expected = torch.stack(alone)
        ruled_out = expected.isneginf() & found.isneginf()
        apart = (found - expected).masked_fill(ruled_out, 0).abs().max()
        return float(apart / expected.masked_fill(ruled_out, 0).abs().max())

    def _is_to_fill(self) -> bool:
        free = self._slots.places - len(self._rows)
        return bool(self._waiting) and free * FILLED_AT_ONCE >= self._slots.places

    def _fill(self) -> list[Written]:
        """Read the prompts of the next rows, and write their first tokens."""
        chosen = self._next()
        ids = [row.ids for row in chosen]
        cache = DynamicCache()
        logits = self._forward(*_padded(ids), cache)
        self._slots.add(cache, [len(each) for each in ids])
        for _ in chosen:
            self._waiting.popleft()
        self._rows += chosen
        return self._take(len(self._rows) - len(chosen), logits)

    def _next(self) -> list[_Row]:
        """The rows that wait longest: as many as there are places, and as one pass may take."""
        chosen: list[_Row] = []
        longest = 0
        for row in islice(self._waiting, self._slots.places - len(self._rows)):
            longest = max(longest, len(row.ids))
            if chosen and longest * (len(chosen) + 1) > PREFILL_TOKENS:
                break
            chosen.append(row)
        return chosen

    def _step(self) -> list[Written]:
        """Write a token of each row."""
        ids = torch.tensor([row.token_ids[-1:] for row in self._rows])
        at = torch.tensor([[len(row.request.prompt_ids) + row.new - 1] for row in self._rows])
        logits = self._forward(ids, self._slots.mask(), at, self._slots.cache)
        self._slots.advance()
        return self._take(0, logits)

    def _take(self, first: int, logits: torch.Tensor) -> list[Written]:
        """Add a token to the rows from `first` on; gives those that are done, which leave."""
        rows = self._rows[first:]
        chosen = self._choose(rows, logits)
        sure = chosen.sure.tolist() if self._exact else [True] * len(rows)
        tokens = [
            token if certain else self._alone(row)
            for row, token, certain in zip(rows, chosen.tokens.tolist(), sure, strict=True)
        ]
        # Only now, as memory may have run out above: a row has a token of each position or none.
        for row, token in zip(rows, tokens, strict=True):
            row.token_ids.append(token)
        self._tell(len(rows))
        return [self._leave(n) for n in reversed(range(first, len(self._rows))) if self._done(n)]

    def _choose(self, rows: Sequence[_Row], logits: torch.Tensor) -> Choice:
        keys = torch.tensor([row.request.noise for row in rows], device=logits.device)
        at = torch.tensor([row.new for row in rows], device=logits.device)
        return choose(logits, keys, at, self._sampling)

    def _alone(self, row: _Row) -> int:
        """A row's next token, chosen from logits that are computed for it alone."""
        self.settled_alone += 1
        logits = self._forward(*_padded([row.ids]), None)
        return int(self._choose([row], logits).tokens[0])

    def _done(self, n: int) -> bool:
        row = self._rows[n]
        return row.token_ids[-1] in self._stop or row.new == self._sampling.max_new_tokens

    def _leave(self, n: int) -> Written:
        """The row at a place, which the last one takes."""
        row, last = self._rows[n], self._rows.pop()
        if row is not last:
            self._rows[n] = last
        self._slots.drop(n)
        return Written(row.request, row.token_ids, row.token_ids[-1] in self._stop)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache | None
    ) -> torch.Tensor:
        """Logits [rows, vocabulary] behind the last token of each row."""
        device = self._model.device
        out = self._model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
            **self._last_only,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _halve(self) -> None:
        """Start again with half the places, from the tokens that are there."""
        self._most = self._slots.places // 2
        if not self._most:
            longest = max(len(row.ids) for row in [*self._rows, *islice(self._waiting, 1)])
            raise CurateError(
                f"expected memory for one row of {longest:,} tokens, found too little on "
                f"{self._model.device}"
            )
        self._waiting.extendleft(reversed(self._rows))
        self._rows, self._slots = [], Slots(self._most)
        self._halved(self._most)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, mask and positions [n, longest], each row at the end of its line."""
    longest = max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([[0] * (longest - len(row)) + [*row] for row in rows])
    at = torch.arange(longest)[None] - (longest - lengths)[:, None]
    return ids, at >= 0, at.clamp(min=0)


def last_logits_only(model: Any) -> dict[str, int]:
    """The option that spares the logits of all tokens but the last, where a model has it."""
    takes = inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in takes else {}


def _is_no_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in str(error) for sign in NO_MEMORY
    )
