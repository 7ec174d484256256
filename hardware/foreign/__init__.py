"""Ground floor: recordings in the formats of other projects, read by a mapping of their columns."""
