"""training/: the host-side trainer and the command line `scent-train`.

The only folder that may import torch. Must never import `daemon`.
"""

import models  # noqa: F401 - silences ONNX Runtime before anything here loads it
