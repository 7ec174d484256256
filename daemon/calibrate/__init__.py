"""Daemon: calibration of the rig, live through the service or from recordings."""
