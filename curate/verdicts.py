"""What may be said of a row as a trace, and what that means for a selection."""

VERDICTS = (
    "ok",
    "prefilled",
    "unclosed",
    "empty",
    "several",
    "missing",
    "not_text",
    "invalid_utf8",
)
"""As of `native.tags`, which takes half a second to import with Numba."""

OK, PREFILLED, UNCLOSED, EMPTY, SEVERAL, MISSING, NOT_TEXT, INVALID_UTF8 = range(len(VERDICTS))

READ = ("ok", "prefilled", "unclosed", "empty", "several")
"""Of rows that could be read as a trace. Rows of others are quarantined, not rejected."""

ACCEPTED = ("ok", "prefilled")
"""Those that a selection keeps unless asked otherwise."""

ACCEPTABLE = (*READ, "missing")
"""Those that it may keep: a row without a thought is still one to train an answer on."""

NOT_READ = {
    "missing": "no thought where the layout has it",
    "not_text": "what stands where the thought should be is no text",
    "invalid_utf8": "its text is not UTF-8",
}
"""What is wrong with rows that were looked at and could not be read as a trace."""

UNREAD = ("unreadable", "too_large", "schema")
"""Of rows that could not be looked at: the reasons of `errors`."""

QUARANTINED = (*NOT_READ, *UNREAD)
"""Reasons of rows that are quarantined. All others are of rejected rows."""
