"""What callers can ask of a car."""
