"""Try the image: the health check inside it and the smoke test outside."""
