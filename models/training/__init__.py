"""Training: sets from history alone, split by time, checked for leaks; metrics; the run that makes a
version.
"""
