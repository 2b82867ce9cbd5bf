"""python -m hidden_subnet: commands for sweeps and runs that exist. The code is in hidden_subnet/cli/main.py."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # `python -m` puts the working directory here, whose random.py would be imported in place of Python's.
    package = str(Path(__file__).resolve().parents[1])
    sys.path[:1] = [] if package in sys.path[1:] else [package]
    try:
        from hidden_subnet.cli.main import main

        main()
    except KeyboardInterrupt:  # while modules were being imported
        sys.exit(130)
