"""One rig's truth: clean-air baseline, channel correction, transfer, enrolment, drift.

May import `hardware` and `models`. Must never import `daemon` or `training`.
Empty as yet: the models run uncalibrated, on differences that need no baseline.
"""
