"""What papers say, in tables of their own."""


def published_section() -> list[str]:
    return []
