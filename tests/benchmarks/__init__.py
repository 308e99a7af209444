"""Figures, measured side by side with the alternatives in one process: `python -m tests.benchmarks [--quick]`.

    patterns, kernels ──▶ adapters ──▶ check
                              │
           effort ──▶ one module a section ──▶ sections ──▶ __main__

Needs the extra `bench`. The tests check that every adapter gives right results, and run every section once on tiny
sizes; nobody looks at those figures.
"""
