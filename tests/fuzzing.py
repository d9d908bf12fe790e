"""
Coverage-guided fuzzing: `python -m tests.fuzzing TARGET --seconds N [--corpus DIR]`.

A target is a function that makes its seeds, in a folder to work in, and gives them with what is
called on each input; what that raises is a finding, and so is a crash, a hang or filled memory. Of
the project all modules are instrumented but those that Numba compiles, as it cannot compile what
is: for `kernels` the reference tells what an input reaches. Inputs that reach something new are
kept in DIR with the seeds, and so are findings, to which a later run on DIR comes first.
"""

import argparse
import json
import math
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

Run = Callable[[bytes], object]
Made = tuple[list[bytes], Run]

COMPILED = [f"curate.native.{m}" for m in "_jit blocks matching repeats scalar simd vector".split()]

DEEP = 3000
"""Of nesting: more than Python follows."""

BETWEEN, WITHIN = b"\x1e", b"\x1f"
"""Between the fields of an input of `kernels`, and between its phrases: in no trace for that."""

INPUT_SECONDS = 30
MAX_RESIDENT_MIB = 2048

JSON_VALUES = (
    *(None, True, 0, 1, -1, 2**63, 10**400, 1.5, math.inf, math.nan, [], [[]], ["x"], {}, {"x": 1}),
    *("", "x", "\0", "\ud800", "\udc80", {"rows": 1, "bytes": 1, "sha256": "x"}),
)


class Target(NamedTuple):
    """What makes a target, pieces that its inputs are made of, and whether they are JSON lines."""

    make: Callable[[Path], Made]
    tokens: Sequence[bytes] = ()
    is_json: bool = False


def lexicon(work: Path) -> Made:
    """Any bytes as a lexicon file."""
    from curate import lexicon as lexicons
    from curate import manifest, native
    from curate.errors import LexiconError

    path = work / "fuzzed.toml"
    told = re.compile(rf"{re.escape(str(path))}:(\d+): \S")

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            loaded = lexicons.load(path)
        except LexiconError as error:
            message = str(error)
            found = told.match(message)
            assert found, message
            assert 1 <= int(found[1]) <= data.count(b"\n") + 1, message
            return
        patterns = loaded.patterns()
        json.dumps(manifest.lexicon_record(loaded))
        cases = [case for c in loaded.categories for case in (*c.match, *c.no_match)]
        if len(patterns) * sum(len(case.text) for case in cases) < 100_000:  # the reference is slow
            lexicons.failures(loaded)
        if len(patterns) < 50 and all(len(phrase) > 1 for _, phrase, _ in patterns):
            native.build_tables(patterns, len(loaded.categories))

    packaged = [lexicons.find(name).read_bytes() for name in lexicons.names()]
    small = (
        b'name = "a"\nversion = 1\n[category.branch]\nphrases = ["wait", "let\'s try"]\n'
        b'start = ["so "]\nmatch = ["Wait."]\nno_match = ["await"]\n',
        b"name='''a'''\nversion=0x1F\ncategory={branch={phrases=['a\\b']},\"c\"={start=[\"x\"]}}\n",
        b'"name" = "\\u00e9"\r\nversion = 1_0\r\n[category]\r\nbranch.phrases = [\r\n"x", # y\r\n]',
        b"name = [[1.5, 1979-05-27 07:32:00], {a.b = true}]\n[[category]]\na = %b" % (b"[" * DEEP),
        b'name = "a"\nversion = 0x1' + b"0" * 4000 + b'\n[category.branch]\nphrases = ["x"]\n',
    )
    return [*packaged, *small], run


def kernels(work: Path) -> Made:
    """
    Each kernel against the reference.

    Fields of an input: settings (delimiter, number of categories, filler, its size, lexicon), the
    literal, phrases (each after a byte of its category and whether it asks for a start), traces.
    """
    from curate import native
    from curate.native import reference
    from tests import strategies
    from tests import test_native_conformance as suite

    build = lru_cache(256)(native.build_tables)
    large = suite.Lexicon([*suite.NESTED.patterns, *suite.FILLING], 5)

    def run(data: bytes) -> None:
        settings, literal, phrases, *batch = [*data.split(BETWEEN), b"", b""][:6]
        kind, count, filler, size, more = settings[:5].ljust(5, b"\0")
        delimiter = ("blank-line", "line", literal or b"\n")[kind % 3]
        batch = [trace[:400] for trace in batch]  # as the reference is slow
        if more % 8 == 1:
            found, tables = suite.NESTED, suite.NESTED_TABLES
        elif more % 8 == 2:
            found, tables = large, suite.LARGE_TABLES
        else:
            categories = 1 + count % 16
            patterns = tuple(
                (phrase[0] // 2 % categories, phrase[1:].lower(), bool(phrase[0] % 2))
                for phrase in phrases.split(WITHIN)[:8]
                if len(phrase) > 2  # those of one byte make big tables
            )
            found, tables = suite.Lexicon(patterns, categories), build(patterns, categories)
        if filler == 1 and batch:  # what lies across the chunks of a kernel
            chunk = suite.CHUNK * suite.BLOCK
            batch = [suite.filled(suite.FILLERS[size % 5], chunk + 28 - size) + batch[0][:60]]
        expected = [
            suite.expected_of([trace], suite.met_in(trace, found), delimiter) for trace in batch
        ]
        for measure in suite.KERNELS.values():
            counts = measure(
                *suite.batch_of(batch), tables, delimiter=delimiter, **suite.EVERYTHING
            )
            answer = suite.answer_of(counts)
            for row, one in enumerate(expected):
                assert suite.rows_of(answer, row, row + 1) == one, (row, answer, one)
        for trace in batch if more // 8 % 4 == 0 else ():
            for start, end in reference.steps(trace, delimiter)[:4]:
                around = trace[:start], trace[start:end], trace[end:]
                suite.check_places(suite.met_in(around[1], found), tables, *around)

    near = WITHIN.join(bytes([n]) + phrase for n, phrase in enumerate(strategies.PHRASES))
    text = (
        b"Wait.\n\nAnother way: let's see\r\n\r\nwait a minute (wait)\n \nawait\xff\n\nSo wait \xe2"
    )
    traces = BETWEEN.join([text, text.upper() * 2, b"", b"\n\n".join(strategies.PROSE)])
    starts = [b"\x01wait\x1f\x02another way", near[:60], near[60:120], near[120:]]
    return [
        BETWEEN.join([bytes([n % 3, n, n % 2 * n, n * 7, n]), literal, starts[n % 4], traces])
        for n, literal in enumerate(strategies.LITERALS)
    ], run


def manifest(work: Path) -> Made:
    """Any bytes as a manifest; what is taken for one is used as the commands do."""
    from curate import manifest, native, output
    from curate.errors import CurateError, OutputError
    from curate.features import measured_fields, parse_delimiter
    from curate.layout import from_dict
    from curate.skipping import Skipped
    from curate.units import Columns

    build = lru_cache(256)(native.build_tables)
    path = manifest.path_of(work)

    def run(data: bytes) -> None:
        try:
            record = manifest.parse(data, path)
        except OutputError:
            return
        manifest.files_of(work, record)
        manifest.check_same(work, record, record)
        Columns(**record["config"]["columns"])
        check_skipped([Skipped(**one) for one in record["skipped"]])
        if record["state"] == "complete":
            check_history(output.history_of(record))
        categories = record["lexicon"]["categories"]
        measured_fields(categories)
        build(
            tuple((c, p.encode(), at_start) for c, p, at_start in record["lexicon"]["patterns"]),
            len(categories),
        )
        with suppress(CurateError):
            parse_delimiter(record["config"]["delimiter"])
        with suppress(CurateError):
            from_dict(record["config"]["layout"], "the scan's manifest")

    records = []
    for rule in ({}, {"keep": "branch_frac < 0.5", "within": ["teacher"]} | CUT):
        records.append(scanned(work / f"out{len(records)}", **rule))
    for record in records:
        record["lexicon"]["patterns"] = record["lexicon"]["patterns"][:5]
    running = records[0] | {"state": "running", "counts": None}
    skipped = {"stage": "scan", "shard": 0, "row_group": None, "first_row": 0, "rows": None}
    skipped |= {"reason": "unreadable", "detail": "x"}
    records += [running, records[0] | {"skipped": [skipped, skipped | {"row_group": 1}]}]
    deep = b'{"format": ' + b"[" * 600 + b"]" * 600 + b"}"
    return [*(json.dumps(record).encode() for record in records), deep, b"[" * DEEP], run


def journal(work: Path) -> Made:
    """Any bytes as the journal of a run."""
    from curate import journal, manifest, output
    from curate.errors import OutputError
    from curate.skipping import Skipped

    path = journal.path_of(work)

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            history = journal.read(work)
        except OutputError:
            return
        check_history(history)

    scanned(work / "out", keep="true", **CUT)
    path.parent.mkdir(parents=True)
    history = output.history_of(manifest.read(work / "out"))
    written = journal.Journal(work)
    written.begin()
    written.skipped(Skipped("emit", 0, 1, 0, 2, "unreadable", "x"))
    written.ended("interrupted")
    begun = path.read_bytes()
    journal.rewrite(work, history)
    whole = path.read_bytes()
    lines = b'{"begun": 1e999}\n{"measured": "1", "files": {}}\n', b"{}\n", b"[" * DEEP + b"\n"
    return [begun, whole, begun + whole, whole[:-9], *lines], run


def thrift(work: Path) -> Made:
    """Any bytes as a struct; no more comes out than went in."""
    from curate.thrift import read_struct

    def run(data: bytes) -> None:
        try:
            fields, end = read_struct(data)
        except (IndexError, ValueError):
            return
        assert 0 < end <= len(data)
        nodes = list(nodes_of(fields))
        assert len(nodes) <= len(data)
        assert sum(len(node) for node in nodes if isinstance(node, bytes)) <= len(data)

    files = [path.read_bytes() for path in parquet_files(work)]
    nested = [bytes([0x15, 0x02, head]) * 2 + bytes([head]) * DEEP for head in (0x19, 0x1C, 0x1B)]
    return [*map(footer_bytes, files), *(file[4:300] for file in files), *nested], run


def footer(work: Path) -> Made:
    """Any bytes as the footer of a sound file; one that is believed is planned for."""
    from curate.errors import CurateError
    from curate.footers import read_footers
    from curate.layout import plain
    from curate.reading import open_shard
    from curate.skipping import OnError, Skips

    paths = parquet_files(work)
    files = [path.read_bytes() for path in paths]
    body = files[0][: -len(footer_bytes(files[0])) - 8]

    def run(data: bytes) -> None:
        shard = shard_of(body + data + len(data).to_bytes(4, "little") + b"PAR1")
        skips = Skips(OnError())
        try:
            for columns in ([], ["id"]):
                found = read_footers([shard], plain("trace"), columns, whole_rows=True, skips=skips)
            kept = found.each[0]
            with open_shard(shard, kept, ["trace", "id"]) as opened:
                _, demands = opened.plan(range(len(kept.row_groups)), 2)
                assert all(demand.num_bytes >= 0 for demand in demands)
        except CurateError:
            return

    return [*map(footer_bytes, files)], run


def pages(work: Path) -> Made:
    """
    Any bytes as the pages of a column chunk of a sound file.

    The first byte chooses which: of text or not, compressed or not, pages of either version.
    """
    import pyarrow as pa

    from curate.errors import ShardError
    from curate.pages import read_pages
    from curate.rawfooter import UNREADABLE, read_footer

    chunks, seeds = [], []
    for path in parquet_files(work):
        data = path.read_bytes()
        for chunk in (c for group in read_footer(shard_of(data)).groups for c in group.chunks):
            seeds.append(bytes([len(chunks)]) + data[chunk.begin : chunk.begin + chunk.stored])
            chunks.append(chunk)

    def run(data: bytes) -> None:
        chosen = chunks[data[0] % len(chunks)] if data else chunks[0]
        chunk = replace(chosen, begin=4, stored=max(0, len(data) - 1))
        file = pa.BufferReader(b"PAR1" + data[1:])
        try:
            found = read_pages(file, chunk, 64)
        except (*UNREADABLE, ShardError):
            return
        for each in (found, found.looked_into(file, 4 << 20)):
            first, last, _ = each.largest()
            assert 0 <= first and -1 <= last < int(each.values.sum())
            sizes = [each.held(), each.batch(1), each.batch(1000), each.repeatable()]
            assert min(sizes) >= 0, sizes

    # Pages that say that they are of 2 MiB, of either version, and a header of lists in lists.
    size, count = b"\x15\x80\x80\x80\x02\x15\x10", b"\x15\x0c"
    v1 = b"\x15\x00%b\x2c%b\x15\x00\x15\x06\x15\x06\x00\x00" % (size, count)
    v2 = b"\x15\x06%b\x5c%b\x15\x00%b\x15\x00\x15\x04\x15\x00\x11\x00\x00" % (size, count, count)
    values = b"\x04\0\0\0abcd"
    large = [bytes([n]) + page + values for n in range(len(chunks)) for page in (v1, v2)]
    return [*seeds, *large, b"\x00" + b"\x19" * DEEP], run


TOML = (
    b'name = "a"~version = 1~[category.branch]~phrases = [~start = [~match = [~no_match = [~source~'
    b"[category]~[[~]]~\"\"\"~'''~{~}~\\u2019~\xe2\x80\x99~# ~0x~1e9~1979-05-27T07:32:00Z~true~inf~"
    b'.~\r\n~"\\""~unique'
)
TEXT = (
    b"\x1e~\x1f~\n\n~\n \n~\r\n~wait~another way~alternatively~\x0b~\xe2\x80\x99~let's~_~\xff~aba~"
    b" so ~wait a minute"
)
JOURNAL = b'{"begun": ~{"measured": ~{"emitted": ~{"skipped": ~"files": {~Infinity~NaN~1e999'
THRIFT = b"\x19~\x1c~\x1b~\xf9~\x15\x02~\x19\x4c~\xff\xff\xff\xff\x0f~\xff\xff\xff\xff\xff\x01"
PAGE = b"\x15\x00\x15~\x15\x04\x15~\x15\x06\x15~\x2c\x15~\x4c~\x5c~" + b"\x80" * 9 + b"\x01"

TARGETS = {
    "lexicon": Target(lexicon, TOML.split(b"~")),
    "kernels": Target(kernels, TEXT.split(b"~")),
    "manifest": Target(manifest, is_json=True),
    "journal": Target(journal, JOURNAL.split(b"~"), is_json=True),
    "thrift": Target(thrift, THRIFT.split(b"~")),
    "footer": Target(footer, THRIFT.split(b"~")),
    "pages": Target(pages, PAGE.split(b"~")),
}


CUT = {"drop_top": 0.4, "rank_by": "branch_frac"}


def scanned(out: Path, **rule: object) -> dict[str, Any]:
    """The manifest of a small scan."""
    import curate
    from curate import manifest

    corpus = out.parent / "corpus" / "0.parquet"
    if not corpus.exists():
        write_parquet(corpus)
    curate.scan(corpus, out=out, id="id", teacher="teacher", threads=1, **rule)
    return manifest.read(out)


def write_parquet(path: Path, rows: int = 6, **options: object) -> Path:
    """A small file with traces, other columns, and one that is nested."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    traces = [f"First.\n\nAlternatively, {n}." * n or None for n in range(rows)]
    table = {
        "id": pa.array([f"{n}" for n in range(rows)], pa.string()),
        "trace": pa.array(traces, pa.string()),
        "teacher": ["a", "b"] * (rows // 2),
        "more": [[{"x": n}] * n for n in range(rows)],
    }
    pq.write_table(pa.table(table), path, **options)
    return path


def parquet_files(work: Path) -> list[Path]:
    """Small files that differ in codecs, encodings, versions of pages, and row groups."""
    options: tuple[dict[str, object], ...] = (
        {"compression": "none"},
        {"compression": "zstd", "use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "snappy", "row_group_size": 2, "write_page_checksum": True},
        {"compression": "gzip", "data_page_size": 1, "write_statistics": False},
        {"store_schema": False, "write_page_index": True, "rows": 0},
    )
    return [write_parquet(work / f"{n}.parquet", **each) for n, each in enumerate(options)]


def footer_bytes(file: bytes) -> bytes:
    """The footer of a file, without its length."""
    return file[-8 - int.from_bytes(file[-8:-4], "little") : -8]


class Held:
    """A file system of one file."""

    type_name = "local"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open_input_file(self, key: str) -> Any:
        """The file."""
        import pyarrow as pa

        return pa.BufferReader(self._data)


def shard_of(data: bytes) -> Any:
    """Bytes as a shard."""
    from curate.corpus import Shard

    return Shard("held.parquet", "held.parquet", "held.parquet", len(data), Held(data))


def nodes_of(value: object) -> Iterator[object]:
    """A value and all values within."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from nodes_of(one)


def check_history(history: Any) -> None:
    """That what was done is of the types that it is declared to be of."""
    records = list(history.emitted.values())
    for shard, files in history.measured.items():
        assert type(shard) is int, shard
        records += files.values()
    for record in records:
        assert type(record.rows) is type(record.bytes) is int, record
        assert type(record.sha256) is str, record
    check_skipped(history.skipped)
    assert history.ended is None or type(history.ended) is str


def check_skipped(skipped: Sequence[Any]) -> None:
    """The same of what was left out."""
    for one in skipped:
        for name, kind in get_type_hints(type(one)).items():
            assert isinstance(getattr(one, name), kind), one


def mutate_json(data: bytes, max_size: int, seed: int) -> bytes:
    """Change a value of one line, mostly; else bytes."""
    import atheris

    draw = random.Random(seed)
    lines = bytes(data).split(b"\n")
    number = draw.randrange(len(lines))
    try:
        document = json.loads(lines[number])
        places = list(places_of(document))
        if not places or draw.random() < 0.2:
            raise ValueError
        held, key = draw.choice(places)
        other, at = draw.choice(places)
        match draw.randrange(5):
            case 0:
                del held[key]
            case 1:
                held[key] = other[at]
            case 2 if isinstance(held, dict):
                held[draw.choice(["x", "1", "rows", *map(str, held)])] = other[at]
            case _:
                held[key] = draw.choice(JSON_VALUES)
        lines[number] = json.dumps(document).encode()
    except (ValueError, RecursionError):  # no JSON, or in a circle
        return bytes(atheris.Mutate(data, max_size))
    return b"\n".join(lines)[:max_size]


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value with each of its keys."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from places_of(one)


def fuzz(name: str, seconds: int, corpus: Path, work: Path) -> None:
    """Run a target; ends the process."""
    try:
        import atheris
    except ImportError:
        sys.exit("error: fuzzing takes atheris: pip install atheris")
    target = TARGETS[name]
    with atheris.instrument_imports(include=["curate"], exclude=COMPILED):
        seeds, run = target.make(work)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    tokens = ("".join(f"\\x{byte:02x}" for byte in token) for token in target.tokens)
    (work / "tokens").write_text("".join(f'"{token}"\n' for token in tokens))
    arguments = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MAX_RESIDENT_MIB}",
        f"-artifact_prefix={corpus}{os.sep}",
        *([f"-dict={work / 'tokens'}"] if target.tokens else []),
        "-print_final_stats=1",
    ]
    more = {"custom_mutator": mutate_json} if target.is_json else {}
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], run, **more)
    atheris.Fuzz()


def main() -> int:
    """Fuzz in a process forked off, which libFuzzer ends without a word to Python."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--corpus", type=Path, help="else a new folder")
    asked = parser.parse_args()
    corpus = asked.corpus or Path(tempfile.mkdtemp(prefix=f"fuzz-{asked.target}-"))
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        child = os.fork()
        if not child:
            fuzz(asked.target, asked.seconds, corpus, Path(work))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.stdout.write(f"corpus: {corpus}\n")
    for path in sorted(corpus.iterdir()):
        if path.name.startswith(("crash-", "timeout-", "oom-")):
            sys.stdout.write(f"found: {path}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
