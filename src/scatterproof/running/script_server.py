"""Set up the process that scripts are forked from; imported nowhere else."""

import signal
import sys

PATH = [folder for folder in sys.path if folder]  # where a started Python would look for modules
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with Snakemake; before, forks that save at SIGTERM need it
