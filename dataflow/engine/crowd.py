"""How many lanes are wanted at once, where the limit is above the number of CPUs.

As many as there are CPUs come without further thought. More would only take turns with those, unless kernels wait for
something else than a CPU: then what waits behind them must get a lane as well.
"""

from __future__ import annotations

from time import perf_counter, process_time

__all__ = ["STALLS", "WAITING", "Crowd"]

SATURATED = 0.5
"""The share of its CPUs that the process uses from which on further lanes would only take turns with those there are.
With 64 inter-op threads on 2 CPUs, stencils and wide graphs of 10 to 1,000 microseconds a kernel took up to 4.6 times
as long as with two, when 64 lanes came at once."""
WAITING = 5
"""Looks in a row without progress after which kernels are taken to wait for something else than the interpreter."""
WINDOW = 12e-3
"""Seconds of such looks by which it is told how many CPUs the process uses: the system counts that by ticks of up to
four milliseconds for each thread, so in a shorter time two products may seem to use none."""
STALLS = 50
"""Looks after which a further lane comes even so: a kernel may spin until another one has begun."""


class Crowd:
    """How many lanes are wanted; told by the watcher's looks, under the pool's lock."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.wanted = cpus
        self._stalls = 0
        """Looks in a row that found no lane any further."""
        self._since: tuple[float, float] | None = None
        """When the last look was that found a lane any further, or had a window of others behind it; and the processor
        time that the process had used by then."""

    def __repr__(self) -> str:
        return f"<Crowd of {self.wanted} lanes on {self.cpus} CPUs>"

    def anew(self) -> None:
        """The limit was changed."""
        self.wanted = self.cpus
        self._since = None

    def look(self, limit: int, *, stalled: bool) -> None:
        """Kernels wait while no lane may come (`stalled`: and none has got any further since the last look).

        Not to be called once as many are wanted as the limit allows.
        """
        now, before = (perf_counter(), process_time()), self._since
        self._stalls = self._stalls + 1 if stalled else 0
        if before is not None and stalled and (self._stalls < WAITING or now[0] - before[0] < WINDOW):
            return
        self._since = now
        if before is None:
            return
        if now[1] - before[1] > SATURATED * self.cpus * (now[0] - before[0]):
            if not stalled:
                self.wanted = self.cpus
            elif self._stalls >= STALLS:
                self.wanted, self._stalls = self.wanted + 1, 0
        elif stalled:  # all wait for something, and a CPU has nothing to do
            self.wanted = limit
