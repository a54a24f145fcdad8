"""What each setting of a defence leaves the pirate, beside its cost, and which one is recommended."""
