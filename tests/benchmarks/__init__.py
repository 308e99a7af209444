"""Figures, measured side by side with the alternatives in one process: `python -m tests.benchmarks [--quick]`.

    patterns ┐
    kernels  ┴─▶ adapters ──▶ measures ──▶ suite ──▶ Markdown, and a picture

Needs the extra `bench`; an alternative that is not installed is left out. The tests run none of it for its figures:
they check that what is timed is right, on graphs so small that it takes no time.
"""
