"""What the page is made of: its HTML, its style, its script and its drawings."""
