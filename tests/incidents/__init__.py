"""The ways in which public fleets of this kind broke, one short test each, with the place where it is told."""
