"""How a run lives: its state and values, its failures, its async operators, and who drives it."""
