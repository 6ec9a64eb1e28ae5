"""The catalogue of actions: a row and a function each."""
