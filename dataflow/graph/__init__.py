"""WHAT runs: operators, nodes, graphs, and how a function becomes a graph and a graph a plan."""
