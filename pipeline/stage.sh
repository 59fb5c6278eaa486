#!/bin/sh
# Runs a module as a stage: `sh pipeline/stage.sh <module> [argument ...]`.
# DVC hands stages to a shell, whose `python` need not be the one that DVC runs with. The nearest .venv counts, of this
# folder or one above it (an experiment in a temporary folder lies below the project's), else the `python` on PATH.
folder=$PWD
while [ ! -x "$folder/.venv/bin/python" ] && [ "$folder" != / ]; do
    folder=$(dirname "$folder")
done
if [ -x "$folder/.venv/bin/python" ]; then
    exec "$folder/.venv/bin/python" -m "$@"
fi
exec python -m "$@"
