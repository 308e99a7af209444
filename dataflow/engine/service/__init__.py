"""How an application holds runs: bounded runtimes, streams, and what is told of both."""
