"""The parts of the suite `provider`: what is tried on a device, and what is expected of it."""
