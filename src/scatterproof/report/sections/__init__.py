"""What the page says, one file a section: its tables and sentences."""
