"""What a model is: preprocessing, decision mathematics, the bundle, and how to run one.

May import `hardware`. Must never import `calibration`, `daemon` or `training`, nor torch: the
daemon on a Raspberry Pi and the trainer both use this folder.
"""

import os

# From 1.29 on the wheels of ONNX Runtime report to their makers which models run, unless this is
# set before they are loaded; their function that switches it off is too late for the first report.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
