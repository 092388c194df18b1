"""Progress, log, signals and output files of a run: for the command line and any other program that starts runs.

Everything here takes plain values, and imports NumPy and tqdm only where it works.
"""
