"""Methods x scenes x numbers of views: run, keep, compare and show."""
