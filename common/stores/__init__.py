"""Where state lives: documents (durable, compare-and-swap) and shared (ephemeral)."""
