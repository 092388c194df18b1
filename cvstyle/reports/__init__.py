"""Progress, log, signals and output files of a run, for the command line and other programs.

Modules take plain values, and import NumPy and tqdm only when used.
"""
