"""Leaf: the process on the Pi, from bytes to MQTT, and the command line `scentd`.

May import `hardware`, `models` and `calibration`. Must never import `training`
or torch.
"""
