"""Networks of this project's own, and attention in a form whose dense layers can be scattered."""
