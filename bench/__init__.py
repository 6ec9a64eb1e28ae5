"""Side-by-side measurements: `python -m bench.run`. The README beside this file says how to read them."""
