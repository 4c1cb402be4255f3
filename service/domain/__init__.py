"""What the service does, without any outside library: entities, errors, ports and use cases."""
