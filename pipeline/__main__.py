"""What a study can be made of, and what can be run: `python -m pipeline [list ...]`.

Every module ends with exit code 0, with 2 and one line of reason where its input is wrong, with 130 where Ctrl-C and
with 143 where a termination signal stopped it; what was finished by then is kept, and the same command goes on.
"""

import argparse

from pipeline.catalogue import LISTS, SLOW, listed, shown
from pipeline.errors import run_stage


def main() -> None:
    quick = [name for name in LISTS if name not in SLOW]
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description=__doc__,
        epilog=shown(quick),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lists", nargs="*", metavar="list", help=f"which of {', '.join(LISTS)} (default: most)")
    print(listed(parser.parse_args().lists))


if __name__ == "__main__":
    run_stage(main)
