"""JSON Schemas of every payload that scentd publishes."""
