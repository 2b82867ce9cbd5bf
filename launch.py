"""python launch.py [-m] [name=value ...]: one run, or a sweep. The code is in hidden_subnet/cli/launch.py."""

import sys

if __name__ == "__main__":
    try:
        from hidden_subnet.cli.launch import main

        main()
    except KeyboardInterrupt:  # while modules were being imported
        sys.exit(130)
