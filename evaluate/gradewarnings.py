"""What must be known of grades before numbers made of them are believed."""

from collections.abc import Mapping

UNJUDGED = 0.01
"""Share of samples that the scorer could not judge, above which that is a warning."""


def warnings_of_grades(statuses: Mapping[str, int], not_compared: int) -> list[str]:
    """
    Warnings of how many samples fared how, and of pairs that were not compared for their groups.

    Wrong answers that stand apart although they are equal have fewer votes, so that maj@k is at
    least what it would be, and maybe above it.
    """
    samples = sum(statuses.values())
    unread, slow = (statuses[name] / samples for name in ("parse_error", "timed_out"))
    warnings = []
    if unread + slow > UNJUDGED:
        warnings.append(
            f"the scorer could not judge {percent(unread + slow)} of samples (parse_error "
            f"{percent(unread)}, timed_out {percent(slow)}); they count as not correct"
        )
    if not_compared:
        warnings.append(
            f"{not_compared:,} pairs of wrong answers could not be compared, or were too many, and "
            "count as different: maj@k may be too high"
        )
    return warnings


def percent(share: float) -> str:
    """A share in [0, 1], with one decimal."""
    return f"{100 * share:.1f} %"
