"""What a run tells while it goes on, and what it writes: for the command line and whatever else starts runs.

Everything here takes plain values, and imports NumPy and tqdm only where it works.
"""
