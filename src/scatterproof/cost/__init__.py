"""What a study has cost: the ledger from journal, sacct and the jobs' own records, and its sums."""
