"""Car makers, each a package of its own; none imports another."""
