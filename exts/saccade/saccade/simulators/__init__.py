"""Simulators: one protocol, several sources of sensor frames."""
