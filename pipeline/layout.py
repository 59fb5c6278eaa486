"""Where the artefacts of a study lie, relative to the project's folder."""

from pathlib import Path

PARAMS = Path("params.yaml")
CONF = Path("conf")
REFERENCE_SET = Path("data/reference")
# Real images with and without what negative prompts name.
CONCEPTS = Path("data/concepts")
CODE = Path("data/code")
WEIGHTS = Path("data/weights.json")
MEASURING = Path("data/measuring.json")
SETS = Path("data/sets")
TRACES = Path("data/trace")
TRAJECTORIES = Path("data/trajectory")
COSTS = Path("data/cost")
# Of arms that the study no longer has.
ASIDE = Path("data/aside")
FEATURES = Path("data/features")
SCORES = Path("data/scores")
HEADLINES = Path("data/headlines")
METRICS = Path("metrics")
PLOTS = Path("plots")
REPORT = Path("reports/index.html")
TRACKED = Path("data/tracked")
DATASET = Path("data/dataset")
EMBEDDED = Path("models/tinybooru")
# Someone's own images to compare with.
IMAGES = Path("images")
