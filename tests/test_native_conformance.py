"""
Every kernel gives the answers of `native.reference`: one suite for all of them.

A kernel is whatever can be called as `native.measure` is. A new one joins by a line in KERNELS.
"""

import ctypes
import mmap
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from itertools import pairwise

import numba
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate import native
from curate.lexicon import load, names
from curate.native import reference
from curate.native.blocks import CHUNK
from curate.native.simd import BLOCK, WIDTH
from tests.strategies import PHRASES, Lexicon, batches, delimiters, is_plain, lexicons, traces
from tests.test_native_reference import (
    BEHIND,
    BLANK,
    COUNT_NAMES,
    COUNTED,
    COUNTS,
    IN_FRONT,
    MATCHES,
    ON_A_LINE,
    STEPS,
    UNIQUE,
    WAIT,
    WORD,
    unmarked,
)

Measure = Callable[..., native.Counts]
Answer = dict[str, list]

KERNELS: dict[str, Measure] = {"scalar": partial(native.measure, kernel="scalar")}
if WIDTH:
    KERNELS["vector"] = partial(native.measure, kernel="vector")

every_kernel = pytest.mark.parametrize("measure", KERNELS.values(), ids=KERNELS)

# Numba wraps around without a word; NumPy, which runs when NUMBA_DISABLE_JIT is set, warns.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

OF_TRACES = (*COUNT_NAMES, "unique_steps")
OF_STEPS = ("spans", "step_markers")
EVERYTHING = {"want_steps": True, "want_unique": True, "want_faults": True}

# For the properties that are not about lexicons, as building tables takes longer than measuring.
PLAIN = [phrase for phrase in PHRASES if is_plain(phrase)]
NESTED = Lexicon([(n % 5, phrase, n % 7 == 0) for n, phrase in enumerate(PLAIN)], 5)
NESTED_TABLES = native.build_tables(*NESTED)
FILLING = [(n % 5, b"%04d filling" % (n * 7919 % 10000), False) for n in range(200)]
LARGE_TABLES = native.build_tables([*NESTED.patterns, *FILLING], 5)


def batch_of(traces: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Data and offsets as the kernels ask for them, read only."""
    data = np.frombuffer(b"".join(traces), np.uint8)
    offsets = np.cumsum([0, *map(len, traces)], dtype=np.int64)
    offsets.flags.writeable = False
    return data, offsets


def answer_of(counts: native.Counts) -> Answer:
    """All arrays as lists."""
    return {field.name: getattr(counts, field.name).tolist() for field in fields(counts)}


def expected_of(traces: Sequence[bytes], lexicon: Lexicon, delimiter: str | bytes) -> Answer:
    """What the reference says of a batch."""
    found = [reference.measure(trace, *lexicon, delimiter) for trace in traces]
    answer = {name: [one[name] for one in found] for name in OF_TRACES}
    for name in OF_STEPS:
        answer[name] = [list(step) for one in found for step in one[name]]
    return answer | {"faults": [reference.fault(trace) or 0 for trace in traces]}


def rows_of(answer: Answer, start: int, stop: int) -> Answer:
    """The answer for a slice of the batch."""
    first, last = sum(answer["steps"][:start]), sum(answer["steps"][:stop])
    rows = {name: answer[name][start:stop] for name in (*OF_TRACES, "faults")}
    return rows | {name: answer[name][first:last] for name in OF_STEPS}


@every_kernel
@pytest.mark.parametrize(("delimiter", "text"), STEPS)
def test_steps_are_as_marked(measure, delimiter, text):
    trace, spans, _ = unmarked(text)
    counts = measure(*batch_of([trace]), NESTED_TABLES, delimiter=delimiter, want_steps=True)
    assert list(map(tuple, counts.spans.tolist())) == spans
    assert counts.steps.tolist() == [len(spans)]


@every_kernel
@pytest.mark.parametrize(("patterns", "delimiter", "text"), MATCHES)
def test_markers_are_as_marked(measure, patterns, delimiter, text):
    trace, *marked = unmarked(text)
    tables = native.build_tables(patterns, 2)
    counts = measure(*batch_of([trace]), tables, delimiter=delimiter, want_steps=True)
    inside = [
        [sum(start <= a and b <= end for a, b in spans) for spans in marked]
        for start, end in counts.spans.tolist()
    ]
    assert counts.step_markers.tolist() == inside
    assert counts.markers.tolist() == [[len(spans) for spans in marked]]


@every_kernel
def test_every_byte_is_a_blank_or_not(measure):
    counts = measure(*batch_of(ON_A_LINE), NESTED_TABLES)
    assert np.flatnonzero(counts.steps == 2).tolist() == sorted(BLANK)


@every_kernel
@pytest.mark.parametrize("texts", [IN_FRONT, BEHIND], ids=["in front", "behind"])
def test_every_byte_is_of_a_word_or_not(measure, texts):
    counts = measure(*batch_of(texts), native.build_tables([WAIT], 1))
    assert np.flatnonzero(counts.markers == 0).tolist() == sorted(WORD)


@every_kernel
@pytest.mark.parametrize(("trace", "expected"), [(row[0], row[1:]) for row in COUNTS])
def test_counts_are_those_of_the_table(measure, trace, expected):
    counts = measure(*batch_of([trace]), native.build_tables(COUNTED, 3))
    assert tuple(getattr(counts, name).tolist()[0] for name in COUNT_NAMES) == expected


@every_kernel
@pytest.mark.parametrize(("delimiter", "trace", "expected"), UNIQUE)
def test_distinct_steps_are_counted_after_trimming(measure, delimiter, trace, expected):
    counts = measure(*batch_of([trace]), NESTED_TABLES, delimiter=delimiter, want_unique=True)
    assert counts.unique_steps.tolist() == [expected]


@pytest.mark.parametrize(("patterns", "delimiter", "text"), MATCHES)
def test_markers_are_found_where_they_are_marked(patterns, delimiter, text):
    trace, *marked = unmarked(text)
    tables = native.build_tables(patterns, 2)
    data, _ = batch_of([trace])
    found: list[list[int]] = []
    for start, end in reference.steps(trace, delimiter):
        found += native.find_markers(data, start, end, tables).tolist()
    for category, spans in enumerate(marked):
        assert [(a, b) for a, b, c in found if c == category] == spans


@every_kernel
@settings(max_examples=120)
@given(batch=batches(), delimiter=delimiters())
@example(batch=(Lexicon([], 1), []), delimiter="line")
@example(batch=(Lexicon([(15, b"a", True)], 16), [b"", b"\n", b"a", b""]), delimiter=b"\n")
def test_the_answer_is_that_of_the_reference(measure, batch, delimiter):
    lexicon, traces = batch
    tables = native.build_tables(*lexicon)
    counts = measure(*batch_of(traces), tables, delimiter=delimiter, **EVERYTHING)
    assert answer_of(counts) == expected_of(traces, lexicon, delimiter)


@every_kernel
@settings(max_examples=250)
@given(batch=st.lists(traces(), max_size=4), delimiter=delimiters())
def test_the_answer_is_that_of_the_reference_for_nested_phrases(measure, batch, delimiter):
    counts = measure(*batch_of(batch), NESTED_TABLES, delimiter=delimiter, **EVERYTHING)
    assert answer_of(counts) == expected_of(batch, NESTED, delimiter)


FILLERS = (b"x", b"\n", b" ", b". ", b"\n\n. ")


def filled(filler: bytes, size: int) -> bytes:
    """So many bytes of a filler."""
    return (filler * (size // len(filler) + 1))[:size]


@every_kernel
@settings(max_examples=60)
@given(
    batch=st.lists(traces(), min_size=1, max_size=4),
    filler=st.sampled_from(FILLERS),
    size=st.builds(
        lambda chunks, more: chunks * CHUNK * BLOCK + more, st.integers(1, 2), st.integers(-100, 40)
    ),
    alone=st.booleans(),
    delimiter=st.sampled_from(["blank-line", "line"]),
)
@example(batch=[b"wait"], filler=b"x", size=16384, alone=True, delimiter="blank-line")
@example(batch=[b"wait"], filler=b" ", size=16390, alone=False, delimiter="blank-line")
@example(batch=[b"", b"wait " * 12, b"wait"], filler=b"x", size=16320, alone=True, delimiter="line")
def test_what_spans_chunks_is_whole(measure, batch, filler, size, alone, delimiter):
    """A kernel that works in chunks carries over what it must."""
    filling = filled(filler, size)
    whole = [filling, *batch] if alone else [filling + batch[0], *batch[1:]]
    counts = measure(*batch_of(whole), NESTED_TABLES, delimiter=delimiter, **EVERYTHING)
    assert answer_of(counts) == expected_of(whole, NESTED, delimiter)


@every_kernel
@settings(max_examples=60)
@given(batch=st.lists(traces(), max_size=4), delimiter=delimiters())
def test_phrases_of_a_large_lexicon_are_found_as_well(measure, batch, delimiter):
    """The same phrases among so many others that never occur that more is asked of each place."""
    assert LARGE_TABLES.large
    assert not NESTED_TABLES.large
    counts = measure(*batch_of(batch), LARGE_TABLES, delimiter=delimiter, **EVERYTHING)
    assert answer_of(counts) == expected_of(batch, NESTED, delimiter)


@settings(max_examples=60)
@given(lexicon=lexicons(), text=st.data())
def test_markers_are_found_where_the_reference_finds_them(lexicon, text):
    check_places(lexicon, native.build_tables(*lexicon), *draw_three(text, lexicon))


@settings(max_examples=200)
@given(text=st.data())
def test_nested_markers_are_found_where_the_reference_finds_them(text):
    check_places(NESTED, NESTED_TABLES, *draw_three(text, NESTED))


def draw_three(text: st.DataObject, lexicon: Lexicon) -> list[bytes]:
    """What stands before a step, the step, and what stands after it."""
    before, step, after = (text.draw(traces(lexicon.patterns)) for _ in range(3))
    return [before, step + b"." if reference.is_blank(step) else step, after]


def check_places(
    lexicon: Lexicon, tables: native.Tables, before: bytes, step: bytes, after: bytes
) -> None:
    """Compare with the reference, whose order is by category and not by place."""
    data, (_, start, end, _) = batch_of([before, step, after])
    expected = reference.find_markers(step, lexicon.patterns)
    by_place = sorted(expected, key=lambda marker: (marker[0], marker[2]))
    found = native.find_markers(data, start, end, tables)
    assert (found - [start, start, 0]).tolist() == list(map(list, by_place))


@every_kernel
@settings(max_examples=80)
@given(batch=st.lists(traces(), max_size=6), delimiter=delimiters(), cut=st.data())
def test_slicing_a_batch_slices_the_answer(measure, batch, delimiter, cut):
    data, offsets = batch_of(batch)
    start = cut.draw(st.integers(0, len(batch)))
    stop = cut.draw(st.integers(start, len(batch)))
    whole = answer_of(measure(data, offsets, NESTED_TABLES, delimiter=delimiter, **EVERYTHING))
    part = offsets[start : stop + 1]
    sliced = answer_of(measure(data, part, NESTED_TABLES, delimiter=delimiter, **EVERYTHING))
    assert sliced == rows_of(whole, start, stop)


@every_kernel
@settings(max_examples=80)
@given(batch=st.lists(traces(), max_size=6), delimiter=delimiters(), cuts=st.data())
def test_splitting_a_batch_anywhere_changes_nothing(measure, batch, delimiter, cuts):
    whole = answer_of(measure(*batch_of(batch), NESTED_TABLES, delimiter=delimiter, **EVERYTHING))
    inner = cuts.draw(st.sets(st.integers(0, len(batch))))
    for start, stop in pairwise([0, *sorted(inner), len(batch)]):
        part = batch_of(batch[start:stop])
        counts = measure(*part, NESTED_TABLES, delimiter=delimiter, **EVERYTHING)
        assert answer_of(counts) == rows_of(whole, start, stop)


@every_kernel
@settings(max_examples=50)
@given(batch=st.lists(traces(), max_size=3), delimiter=delimiters())
def test_asking_for_less_changes_no_count(measure, batch, delimiter):
    arrays = batch_of(batch)
    whole = answer_of(measure(*arrays, NESTED_TABLES, delimiter=delimiter, **EVERYTHING))
    for wanted in ({}, {"want_steps": True}, {"want_unique": True}):
        counts = measure(*arrays, NESTED_TABLES, delimiter=delimiter, **wanted)
        found = {f.name for f in fields(counts) if getattr(counts, f.name) is not None}
        asked = {*OF_STEPS} if "want_steps" in wanted else set()
        asked |= {"unique_steps"} if "want_unique" in wanted else set()
        assert found == {*COUNT_NAMES, *asked}
        assert {name: getattr(counts, name).tolist() for name in found} == {
            name: whole[name] for name in found
        }


def test_a_kernel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"kernel: expected scalar or .*, found 'vectr'"):
        native.measure(*batch_of([b"wait"]), NESTED_TABLES, kernel="vectr")


def test_tables_of_thousands_of_phrases_are_exact():
    phrases = [b"number %d" % (n * n) for n in range(3000)]
    tables = native.build_tables([(n % 3, phrase, False) for n, phrase in enumerate(phrases)], 3)
    counts = native.measure(*batch_of([b", ".join(phrases), b"number 1000000001"]), tables)
    assert counts.markers.tolist() == [[1000, 1000, 1000], [0, 0, 0]]


@every_kernel
def test_answers_have_the_types_that_counts_promises(measure):
    counts = measure(*batch_of([b"wait\n\na"] * 3), NESTED_TABLES, **EVERYTHING)
    assert {
        f.name: (getattr(counts, f.name).dtype, *getattr(counts, f.name).shape)
        for f in fields(counts)
    } == {
        **dict.fromkeys((*COUNT_NAMES[:4], "unique_steps"), (np.int32, 3)),
        **dict.fromkeys(COUNT_NAMES[4:], (np.int32, 3, 5)),
        "spans": (np.int64, 6, 2),
        "step_markers": (np.int32, 6, 5),
        "faults": (np.uint8, 3),
    }


@every_kernel
@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled: a minute")
def test_a_huge_trace_is_measured_like_a_small_one(measure):
    tables = native.build_tables([(0, b"wait", False), (1, b"one", True)], 2)
    trace = b"Wait one\n\n one, so wait: wait\r\n\r\n" * 100_000 + b"x" * 1_000_000
    counts = measure(*batch_of([b"", trace, b"wait"]), tables, **EVERYTHING)
    assert counts.steps.tolist() == [0, 200_001, 1]
    assert counts.branch_steps.tolist() == [0, 200_000, 1]
    assert counts.branch_pairs.tolist() == [0, 199_999, 0]
    assert counts.markers.tolist() == [[0, 0], [300_000, 100_000], [1, 0]]
    assert counts.unique_steps.tolist() == [0, 3, 1]
    assert counts.spans[-2].tolist() == [len(trace) - 1_000_000, len(trace)]


@every_kernel
@pytest.mark.parametrize("delimiter", ["blank-line", "line", b"\n\n", b"\n"])
def test_steps_of_one_byte_each_all_find_room(measure, delimiter):
    batch = [b"a\n\n" * 50, b"", b"b\n\na\n\n" * 100]
    counts = measure(*batch_of(batch), NESTED_TABLES, delimiter=delimiter, **EVERYTHING)
    assert answer_of(counts) == expected_of(batch, NESTED, delimiter)
    assert counts.steps.tolist() == [50, 0, 200]
    assert counts.unique_steps.tolist() == [1, 0, 2]


@every_kernel
def test_many_distinct_steps_are_counted_exactly(measure):
    once = b"\n".join(b"%d" % (number * number) for number in range(3000))
    batch = [once, once + b"\n" + once, b"", once[:100]]
    counts = measure(*batch_of(batch), NESTED_TABLES, delimiter="line", want_unique=True)
    assert counts.unique_steps.tolist() == [3000, 3000, 0, len(once[:100].split())]


def test_more_markers_than_expected_all_find_room():
    data, _ = batch_of([b"wait " * 300])
    tables = native.build_tables([(0, b"wait", False)], 1)
    places = [[5 * n, 5 * n + 4, 0] for n in range(300)]
    assert native.find_markers(data, 0, data.size, tables).tolist() == places


@every_kernel
def test_sixteen_categories_do_not_mix(measure):
    patterns = [(n, b"c%x" % n, n % 2 == 1) for n in range(16)]
    patterns += [(n, b"all", False) for n in range(16)]
    tables = native.build_tables(patterns, 16)
    batch = [b"all", b"cf all\n\nc0 c0 cf c1", b"\n\n".join(b"c%x" % n for n in range(16))]
    counts = measure(*batch_of(batch), tables, **EVERYTHING)
    assert counts.markers.tolist() == [[1] * 16, [3] + [1] * 14 + [2], [1] * 16]
    assert answer_of(counts) == expected_of(batch, Lexicon(patterns, 16), "blank-line")


@pytest.fixture(scope="module")
def guarded() -> np.ndarray:
    """Pages of memory between two pages that nobody may read or write."""
    if not sys.platform.startswith("linux"):
        pytest.skip("mprotect is called as on Linux")
    size = mmap.PAGESIZE * 4
    memory = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for guard in (begin, begin + mmap.PAGESIZE + size):
        assert mprotect(guard, mmap.PAGESIZE, 0) == 0, ctypes.get_errno()
    return np.frombuffer(memory, np.uint8, size, mmap.PAGESIZE)


@every_kernel
@settings(max_examples=150)
@given(batch=st.lists(traces(), max_size=3), delimiter=delimiters())
@example(batch=[b"wait"], delimiter="blank-line")
@example(batch=[b"wait", b""], delimiter="line")
@example(batch=[b"ab"], delimiter=b"aba")
def test_nothing_outside_the_data_is_read(guarded, measure, batch, delimiter):
    """A read outside ends in a segmentation fault here, whose traceback names this test."""
    joined, offsets = batch_of(batch)
    expected = expected_of(batch, NESTED, delimiter)
    for place in (slice(0, joined.size), slice(guarded.size - joined.size, guarded.size)):
        guarded[place] = joined
        data = guarded[place]
        data.flags.writeable = False
        counts = measure(data, offsets, NESTED_TABLES, delimiter=delimiter, **EVERYTHING)
        assert answer_of(counts) == expected
        for trace, start in zip(batch, offsets.tolist(), strict=False):
            for a, b in reference.steps(trace, delimiter):
                native.find_markers(data, start + a, start + b, NESTED_TABLES)


@pytest.fixture(scope="module")
def real_traces(traces) -> list[bytes]:
    """Some of the real traces, the same ones in every run, in an order of their own."""
    column = pq.read_table(traces, columns=["trace"])["trace"].drop_null()
    chosen = random.Random(0).sample(range(len(column)), 300)
    return [column[row].as_py().encode() for row in chosen]


def met_in(trace: bytes, lexicon: Lexicon) -> Lexicon:
    """The lexicon without the phrases that a trace does not hold: as the reference is slow."""
    lowered = trace.lower()
    return Lexicon([p for p in lexicon.patterns if p[1] in lowered], lexicon.num_categories)


def check_real(measure: Measure, lexicon: Lexicon, batch: Sequence[bytes]) -> None:
    """Compare a batch with the reference, trace by trace."""
    counts = measure(*batch_of(batch), native.build_tables(*lexicon), **EVERYTHING)
    answer = answer_of(counts)
    for row, trace in enumerate(batch):
        expected = expected_of([trace], met_in(trace, lexicon), "blank-line")
        assert rows_of(answer, row, row + 1) == expected


@every_kernel
@pytest.mark.parametrize("name", names())
def test_real_traces_are_measured_as_the_reference_does(measure, name, real_traces):
    lexicon = load(name)
    check_real(measure, Lexicon(lexicon.patterns(), len(lexicon.categories)), real_traces)


@every_kernel
def test_a_lexicon_of_500_phrases_in_16_categories_is_matched_exactly(measure, real_traces):
    draw = random.Random(1)
    patterns = []
    for _ in range(500):
        trace = draw.choice(real_traces)
        size = draw.randint(2, 24)
        start = draw.randrange(len(trace) - size)
        phrase = trace[start : start + size].lower()
        patterns.append((draw.randrange(16), phrase, draw.random() < 0.2))
    batch = [trace[:3000] for trace in real_traces[:20]]
    check_real(measure, Lexicon(patterns, 16), batch)
