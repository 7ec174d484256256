"""The first configuration of a rig: which boards and brokers are there, and the file itself."""
