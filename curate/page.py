"""
One HTML file that needs nothing else: no server, no network, no file beside it.

A policy in its head forbids every request, and every script and style but its own, which it knows
by their hashes; so whatever a text from data or a model holds, it stays text. Data lie in blocks
that the page's scripts read with `unpacked(id)` (`page.js`), as JSON that was compressed.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from curate.errors import OutputError
from curate.terminal import printable
from curate.wholefile import whole_file

OPENING = "<!doctype html>\n<!-- written by curate -->\n"
"""How a page begins, by which one of ours is known."""


def escaped(text: object) -> str:
    """A text as HTML shows it on one line, in an attribute too; what cannot be printed is told."""
    return html.escape(printable(str(text)))


def packed(value: Any) -> str:
    """A value as base64 of gzip of JSON in ASCII: the same value, the same bytes."""
    told = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(told.encode("ascii"), mtime=0)).decode("ascii")


def asset(package: str, name: str) -> str:
    """A style or a script that lies in a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def page(
    title: str,
    body: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Mapping[str, str] | None = None,
) -> str:
    """
    The HTML of a page: `body` is HTML, `styles` and `scripts` follow those that all pages have.

    `data` are `packed` values by the id of their block. Styles stand in sheets alone, since the
    policy also forbids `style=` (an SVG's width and fill are attributes of their own).
    """
    style = "\n".join([asset("curate", "page.css"), *styles])
    script = "\n".join([asset("curate", "page.js"), *scripts])
    blocks = [
        f'<script type="application/octet-stream" id="{escaped(name)}">{block}</script>\n'
        for name, block in (data or {}).items()
    ]
    return "".join([_head(title, style, script), body, *blocks, _script(script), "</html>\n"])


def _head(title: str, style: str, script: str) -> str:
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "data:",  # the empty icon below, or a browser would ask a server for one
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in rules.items())
    return (
        f'{OPENING}<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style>\n"
    )


def _script(script: str) -> str:
    return f"<script>{script}</script>\n"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def write_page(path: Path, text: str) -> int:
    """Write a page, whole or not at all; the bytes it has. Raises OutputError as `check_place`."""
    check_place(path)
    try:
        with whole_file(path) as part:
            return part.write_bytes(text.encode("utf-8"))
    except OSError as error:
        raise OutputError(f"{path}: expected to write a page there, found {error}") from None


def check_place(path: Path) -> None:
    """Raise OutputError where a page cannot go: no folder, or a file that is no page of ours."""
    if not path.parent.is_dir():
        raise OutputError(f"{path}: expected a folder to write into, found none")
    if not path.exists():
        return
    if not path.is_file() or not _is_ours(path):
        raise OutputError(f"{path}: expected nothing there or a page of curate, found another")


def _is_ours(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(OPENING)) == OPENING.encode("ascii")
