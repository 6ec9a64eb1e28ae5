"""Mechanisms that know nothing of cars."""
