"""Random programs for as long as one likes: `python -m tests.soak.flags 10000`. The suite runs a few of each."""
