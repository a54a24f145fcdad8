"""The told ceiling: what the blocks are worth to a pirate who is told their places and every key."""
