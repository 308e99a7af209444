"""HOW it is seen: what looks at runs from outside."""
