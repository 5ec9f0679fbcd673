"""One page that shows a benchmark to somebody who was not there."""
