"""Formats quantities as text."""


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 05 s` or `7 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def count(number: int, what: str) -> str:
    """`1 run` or `1,000 runs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
