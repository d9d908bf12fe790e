"""Hashes of traces against a slow twin, and what was seen before against a dictionary of bytes."""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.duplicates import FILLED, FIRST_SLOTS, SeenHashes, TraceHashes
from curate.native.hashing import KEYS

ALL_BITS = (1 << 64) - 1
SENTENCE = b"Wait, let me think again about the problem. " * 5


def mixed(value: int) -> int:
    """Each bit of 64 spread over all of them."""
    value = (value ^ value >> 33) * KEYS[0] & ALL_BITS
    value = (value ^ value >> 29) * KEYS[1] & ALL_BITS
    return value ^ value >> 32


def half(trace: bytes, lanes: Sequence[int], first: int, second: int) -> int:
    """One half of the hash: four lanes take eight bytes each in turn, then all is mixed."""
    filled = trace + bytes(-len(trace) % 32)
    lanes = list(lanes)
    for at in range(0, len(filled), 8):
        word = int.from_bytes(filled[at : at + 8], "little")
        lane = lanes[at // 8 % 4] + word * first & ALL_BITS
        lanes[at // 8 % 4] = (lane << 31 | lane >> 33) * second & ALL_BITS
    value = len(trace)
    for lane in lanes:
        value = mixed(value + lane & ALL_BITS)
    return value


def hash_of(trace: bytes) -> list[int]:
    """What `hash_texts` gives for a trace."""
    return [half(trace, KEYS[:4], *KEYS[4:6]), half(trace, KEYS[4:], *KEYS[6:])]


def hashes_of(traces: Sequence[bytes]) -> np.ndarray:
    """The kernel's, of traces that lie end to end."""
    offsets = np.cumsum([0, *map(len, traces)], dtype=np.int64)
    data = np.frombuffer(b"".join(traces), np.uint8)
    return TraceHashes().add((data, offsets[:-1], offsets[1:]))


@given(st.lists(st.binary(max_size=100) | st.binary(min_size=30, max_size=34), max_size=6))
@example([bytes(size) for size in range(70)])
@example([SENTENCE[:size] for size in range(140)])
def test_the_kernel_is_its_twin(traces):
    assert hashes_of(traces).tolist() == [hash_of(trace) for trace in traces]


@given(st.binary(max_size=90), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90))))
def test_spans_may_lie_anywhere(data, places):
    spans = [(min(a, b, len(data)), min(max(a, b), len(data))) for a, b in places]
    starts, ends = np.array(spans, np.int64).reshape(-1, 2).T  # not contiguous
    hashes = TraceHashes().add((np.frombuffer(data, np.uint8), starts, ends))
    assert hashes.tolist() == [hash_of(data[a:b]) for a, b in spans]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.string_view(),
        pa.dictionary(pa.int8(), "utf8"),
    ],
    ids=str,
)
def test_every_kind_of_text_is_hashed_by_its_bytes(kind):
    texts = ["Wait", "", None, "é 等等", "Wait", "x" * 100]
    traces = pa.array(texts).cast(kind)
    expected = [hash_of((text or "").encode()) for text in texts]
    assert TraceHashes().add(traces).tolist() == expected
    assert TraceHashes().add(traces.slice(2, 3)).tolist() == expected[2:5]
    assert TraceHashes().add(traces.slice(0, 0)).shape == (0, 2)


def test_each_bit_of_a_trace_turns_half_of_the_hash():
    turned = [
        SENTENCE[:i] + bytes([SENTENCE[i] ^ 1 << bit]) + SENTENCE[i + 1 :]
        for i in range(len(SENTENCE))
        for bit in range(8)
    ]
    changes = hashes_of(turned) ^ hashes_of([SENTENCE])
    bits = np.unpackbits(changes.view(np.uint8), axis=1)
    assert abs(bits.mean() - 0.5) < 0.01
    assert (abs(bits.mean(axis=0) - 0.5) < 0.08).all()
    assert (abs(bits.mean(axis=1) - 0.5) < 0.25).all()


def twice_turned() -> list[bytes]:
    """Traces that differ in two bytes, which may lie in one lane, in two, or in two stripes."""
    return [
        bytes(byte ^ a * (n == i) ^ b * (n == j) for n, byte in enumerate(SENTENCE[:72]))
        for i, j in combinations(range(72), 2)
        for a, b in ((1, 1), (0x80, 0x80), (0x20, 0x80))
    ]


@pytest.mark.parametrize(
    "traces",
    [
        [b"%d + %d = %d" % (a, b, a + b) for a in range(400) for b in range(400)],
        [bytes(size) for size in range(2000)],
        twice_turned(),
    ],
    ids=["sums", "zeros", "two bytes"],
)
def test_either_half_tells_similar_traces_apart(traces):
    hashes = hashes_of(traces)
    assert len(set(traces)) == len(traces)
    assert [len(np.unique(hashes[:, n])) for n in (0, 1)] == [len(traces)] * 2


def seen_before(keys: Sequence[object], mask: Sequence[bool]) -> list[bool]:
    """Whether each key stands further up; those left out neither count nor are counted."""
    seen: set[object] = set()
    marked = []
    for key, taken in zip(keys, mask, strict=True):
        marked.append(taken and key in seen)
        seen |= {key} if taken else set()
    return marked


def cut(values: np.ndarray, places: Sequence[int]) -> list[np.ndarray]:
    """The values in chunks."""
    bounds = [0, *sorted(min(place, len(values)) for place in places), len(values)]
    return [values[a:b] for a, b in pairwise(bounds)]


def marked_in(chunks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is marked in chunks of hashes, in order."""
    return list(map(SeenHashes().mark, chunks))


@given(
    st.lists(st.tuples(st.binary(max_size=1) | st.binary(max_size=40), st.booleans()), max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_marks_are_those_of_a_dictionary_of_bytes(rows, places):
    traces, mask = [trace for trace, _ in rows], np.array([taken for _, taken in rows], bool)
    hashes = hashes_of(traces)
    seen = SeenHashes()
    marked = [seen.mark(*one) for one in zip(cut(hashes, places), cut(mask, places), strict=True)]
    assert [len(chunk) for chunk in marked] == [len(chunk) for chunk in cut(mask, places)]
    assert np.concatenate(marked).tolist() == seen_before(traces, mask.tolist())
    marked = marked_in(cut(hashes, places))
    assert np.concatenate(marked).tolist() == seen_before(traces, [True] * len(traces))


EDGES = (0, 1, 1 << 32, ALL_BITS - 1, ALL_BITS)


@given(st.lists(st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)), max_size=60))
def test_any_hashes_are_told_apart(keys):
    hashes = np.array(keys, np.uint64).reshape(-1, 2)
    (marked,) = marked_in([hashes])
    assert marked.tolist() == seen_before(keys, [True] * len(keys))


def test_hashes_at_both_ends_of_the_table_survive_its_growth():
    ends = np.array([(0, n) for n in range(500)] + [(ALL_BITS, n) for n in range(500)], np.uint64)
    spread = np.arange(1, 300_001, dtype=np.uint64)[:, None] * np.array(KEYS[:2], np.uint64)
    chunks = [ends, *cut(spread, range(0, 300_000, 7_000)), ends, spread]
    assert len(spread) > FIRST_SLOTS * FILLED
    marked = marked_in(chunks)
    assert [chunk.sum() for chunk in marked[:-2]] == [0] * (len(chunks) - 2)
    assert [chunk.all() for chunk in marked[-2:]] == [True, True]


def test_a_mask_goes_with_its_chunk():
    hashes = np.zeros((3, 2), np.uint64)
    with pytest.raises(ValueError, match=r"expected hashes of shape \(2, 2\), found \(3, 2\)"):
        SeenHashes().mark(hashes, np.ones(2, bool))


def test_real_traces_are_marked_as_their_bytes_say(traces):
    column = pq.read_table(traces, columns=["trace"])["trace"]
    texts = column.to_pylist()
    again = pa.chunked_array([*column.chunks, column.chunk(0).slice(5, 50)])
    chunks = [TraceHashes().add(chunk) for chunk in again.chunks]
    marked = np.concatenate(marked_in(chunks))
    assert marked.tolist() == seen_before([*texts, *texts[5:55]], [True] * len(marked))
    assert marked[-50:].all()
