"""What a run will take, from configuration and counts alone."""


def estimate(job: object) -> str:
    """Return a placeholder."""
    return str(job)
