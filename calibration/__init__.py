"""One rig's truth: clean-air baseline, channel correction, transfer, enrolment, drift.

May import `hardware` and `models`. Must never import `daemon` or `training`.
"""
