"""What a first reading skips: decoding, drawing, downloading, the command line, hostile files.

Nothing in here imports a script of the top level, but the benchmark and the tests.
"""
import os

# Threads wait for each other in a loop, by default for so long that a second busy program on the
# same cores makes training ten times slower. GNU's OpenMP reads this when torch is loaded, so it
# must be set before: the scripts import from here first.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
