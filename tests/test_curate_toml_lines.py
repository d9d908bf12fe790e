"""The line of everything in a TOML document: documents written with their lines noted."""

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from curate.toml_lines import lines_of

SCALARS = ["1", "-1.5e3", "0x1F", "true", "-inf", "1979-05-27 07:32:00.5", "07:32:00"]
STRINGS = ['"a"', "'a'", '"\\"#]"', "'#\"'", '"""a"""', "'''a'''", '""', "''", '""""a"""""']
LONG_STRINGS = ['"""\na\n#\\"""\n"""', "'''\n[x]\n'''", '"""a\\\n  b"""']
GAPS = ["", " ", "\n", "\r\n", "# [x] = \"'\n", '\n\n# \' """\n\t']


class Writer:
    """Writes a TOML document from drawn choices, and notes the line of every path."""

    def __init__(self, draw):
        self.draw, self.text, self.lines = draw, "", {(): 1}

    def put(self, text, *path):
        if path:
            self.lines.setdefault(path, self.text.count("\n") + 1)
        self.text += text

    def choose(self, options):
        return self.draw(st.sampled_from(options))

    def key(self, name):
        return self.choose([name, f'"{name}"', f"'{name}'", f'"\\u{ord(name[0]):04x}{name[1:]}"'])

    def value(self, path, depth):
        kind = self.choose(["scalar", "string", "array", "table"][: 2 if depth == 0 else 4])
        if kind == "scalar":
            self.put(self.choose(SCALARS), *path)
        elif kind == "string":
            self.put(self.choose(STRINGS + LONG_STRINGS), *path)
        elif kind == "array":
            self.array(path, depth)
        else:
            self.table(path, depth)

    def array(self, path, depth):
        self.put("[", *path)
        for index in range(self.draw(st.integers(0, 3))):
            self.put(("," if index else "") + self.choose(GAPS))
            self.value((*path, index), depth - 1)
            self.put(self.choose(GAPS))
        self.put("]")

    def table(self, path, depth):
        self.put("{", *path)
        for index in range(self.draw(st.integers(0, 2))):
            self.put(", " if index else " ")
            self.pair((*path, f"k{index}"), depth - 1)
        self.put(" }")

    def pair(self, path, depth):
        self.put(self.key(path[-1]), *path)
        if self.draw(st.booleans()):
            path = (*path, "dot")
            self.put(self.choose([".", " . "]))
            self.put(self.key("dot"), *path)
        self.put(self.choose(["=", " = "]))
        self.value(path, depth)


@st.composite
def documents(draw):
    """A TOML document and the line of each of its paths."""
    writer = Writer(draw)
    for number in range(draw(st.integers(0, 4))):
        writer.put(writer.choose(["\n", "# ' \n", "\r\n"]))
        table = ()
        if draw(st.booleans()):
            table = (f"t{number}", "sub")
            writer.put("[")
            writer.put(writer.key(table[0]), table[0])
            writer.put(".")
            writer.put(writer.key("sub"), *table)
            writer.put("]\n")
        elif number:
            continue
        writer.pair((*table, f"k{number}"), draw(st.integers(0, 3)))
        writer.put(writer.choose(["\n", " # ]\n", "\r\n"]))
    return writer.text, writer.lines


@settings(deadline=None, max_examples=300)
@given(documents())
def test_every_key_and_item_has_its_line(document):
    text, lines = document
    tomllib.loads(text)
    assert lines_of(text) == lines
