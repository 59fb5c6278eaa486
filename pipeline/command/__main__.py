"""The command line `guidedrift`, as a module: `python -m pipeline.command <command>`."""

from pipeline.command.app import main

if __name__ == "__main__":
    main()
