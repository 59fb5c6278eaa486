"""MLflow's pages over the study's runs, on loopback alone: `python -m pipeline.tracking.server [--port 5000]`.

Reads params.yaml and the database that it names, mlflow.db by default; Ctrl-C ends it. Where runs go to a server
already (MLFLOW_TRACKING_URI or `tracking.uri`), its address is printed and nothing is started.
"""

import argparse
import os
import sys
from pathlib import Path

from pipeline.credentials import masked
from pipeline.errors import run_stage
from pipeline.study.study import load_study
from pipeline.tracking.store import artifact_folder, explained, local_database, open_store, tracking_uri
from pipeline.tracking.view import view_address


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tracking.server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args().port
    study = load_study()
    uri = tracking_uri(study.tracking.uri)
    database = local_database(uri, Path())
    if database is None:
        print(f"the runs are at {masked(uri)}; look there")
        return
    address = f"http://127.0.0.1:{port}"
    if database.exists():
        with explained(uri):
            experiment = open_store(uri, Path()).get_experiment_by_name(study.tracking.experiment)
        if experiment is not None:
            address = view_address(address, experiment.experiment_id, study.name)
    print(f"runs: {address}   (Ctrl-C ends the server)", flush=True)
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--backend-store-uri": f"sqlite:///{database}",
        "--default-artifact-root": str(artifact_folder(database)),
    }
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]
    os.execv(sys.executable, command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    run_stage(main)
