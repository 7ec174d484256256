"""Daemon: the process on the Pi, from bytes to MQTT, and the command line `scentd`.

May import `hardware`, `models` and `calibration`, never `training` or torch.
"""
