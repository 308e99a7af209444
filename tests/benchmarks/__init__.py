"""Figures, measured side by side with the alternatives in one process: `python -m tests.benchmarks [--quick]`.

    patterns ──▶ adapters ──▶ measure ──▶ tables

Needs the extra `bench`. Nothing here is run by the tests but for one small pass that checks the results.
"""
