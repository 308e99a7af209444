"""WHERE it runs: how many threads there may be, and which CPUs this process really has.

`settings` holds the numbers that users set, `cpus` finds the defaults. `blas` finds the BLAS libraries, `policy`
decides how many threads they may use now, and `controller` puts that in force while kernels run. Nothing here starts a
thread: that is for `engine.pool`, which subscribes to the settings. This is the only package that reads the
environment.
"""
