"""What a model is: preprocessing, decision mathematics, the bundle, and how to run one.

May import `hardware`. Must never import `calibration`, `daemon` or `training`,
and never torch: both leaves use this room, one of them on a Raspberry Pi.
"""

import os

# From 1.29 on the wheels of ONNX Runtime report to their makers which models run, unless this is
# set when they are loaded; their function that switches it off comes too late for the first report.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
