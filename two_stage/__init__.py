"""The plumbing that every script of the two-stage recipe would otherwise repeat, one idea a module."""
