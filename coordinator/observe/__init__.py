"""Take in what the parts of a node tell: events, durations, the load of the node, the rules of health, the log."""
