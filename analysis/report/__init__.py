"""One page for a suite, and one over all published suites: self-contained HTML with interactive curves."""
