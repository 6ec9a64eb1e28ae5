"""Tools for those who run the service."""
