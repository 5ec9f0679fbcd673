"""Update and query of the fast-weight memory."""
