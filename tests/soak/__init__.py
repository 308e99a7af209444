"""Programs for as long as one likes, of which the suite runs a few:

python -m tests.soak.flags 10000        random bodies whose kernels keep what they return
python -m tests.soak.composer 10000     random programs that speak the public API
python -m tests.soak.sweep              numpy and scipy.ndimage on every kind of value
"""
