"""The traffic of a layer that devices serve: the network, and its hijacks."""
