"""Simulated car makers, run as real HTTP servers."""
